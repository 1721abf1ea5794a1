"""The contract of docs/wire.md, kept with a Kafka client and an Avro library alone, against a coordinator.

What a foreign program does here is done by those of `examples/`, or by :class:`Bare` below; none of them
imports this package.
"""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import uuid
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any, ClassVar

import fastavro
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from msgspec.structs import replace

from orchestrator.codec import avro
from orchestrator.log.port import Record
from orchestrator.log.topics import COMMANDS, COMMANDS_TX, HISTORY, META, REPLIES, TASKS, WORKERS
from orchestrator.protocol.commands import CompleteActivity, ReturnActivity, StartWorkflow
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import ActivityTask, WorkerBeat
from tests.e2e.dev_process import COMMAND, TIMEOUT_S, command, environment
from tests.kafka.broker import guard
from tests.kafka.raw import SOON_S, RawLog
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("wire")]

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "examples"
PARTITIONS = 4


class Bare:
    """A client as docs/wire.md describes it: JSON out, Avro in, a partition of replies from its end."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self.namespace = namespace
        self.client_id = uuid.uuid4().hex
        self.producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0})
        self.consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": self.client_id})
        topic = f"{namespace}.replies"
        count = len(self.consumer.list_topics(topic, timeout=SOON_S).topics[topic].partitions)
        place = TopicPartition(topic, zlib.crc32(self.client_id.encode()) % count)
        place.offset = self.consumer.get_watermark_offsets(place, timeout=SOON_S)[1]
        self.consumer.assign([place])
        self.reply_to = {"partition": place.partition, "client_id": self.client_id}
        self.schema = fastavro.parse_schema(json.loads((ROOT / "schemas" / "replies.avsc").read_text()))

    def send(self, command: dict[str, Any]) -> None:
        """Append a command, wherever the client's own partitioner puts it."""
        self.producer.produce(f"{self.namespace}.commands", json.dumps(command), command["workflow_id"])
        assert self.producer.flush(SOON_S) == 0

    def ask(self, **command: Any) -> dict[str, Any]:
        """Append a command; returns the answer to it."""
        command = {"request_id": uuid.uuid4().hex, "reply_to": self.reply_to, **command}
        self.send(command)
        while True:
            record = self.consumer.poll(SOON_S)
            assert record is not None, f"no answer to {command}"
            assert record.error() is None, record.error()
            if dict(record.headers())["client"] == self.client_id.encode():
                reply: dict[str, Any] = fastavro.schemaless_reader(
                    io.BytesIO(record.value()[5:]), self.schema
                )
                if reply["request_id"] == command["request_id"]:
                    return reply


class Stage:
    """A namespace with a coordinator that has the workflow of `examples/http_worker.py`."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path, stack: ExitStack) -> None:
        self.raw = RawLog(bootstrap, namespace)
        stack.callback(self.raw.close)
        self.raw.create_topics(partitions=PARTITIONS)
        self.environment = environment(
            ORCHESTRATOR_LOG=f"kafka://{bootstrap}", ORCHESTRATOR_NAMESPACE=namespace
        )
        self.folder = folder
        self._stack = stack
        self.start([*COMMAND, "coordinator", "http_worker", "--data", str(folder / "data")], "ready: ")
        self.bare = Bare(bootstrap, namespace)
        stack.callback(self.bare.consumer.close)

    def start(self, command: list[str], first_words: str) -> tuple[subprocess.Popen[str], str]:
        """Start a process, which is ended with the stage; returns its first line, if it begins so."""
        with (self.folder / "stderr.log").open("a") as errors:
            process = subprocess.Popen(
                command, cwd=EXAMPLES, stdout=subprocess.PIPE, stderr=errors, text=True, env=self.environment
            )
        guarding = guard(process.pid)
        self._stack.callback(lambda: guarding.communicate(b"ended\n"))
        self._stack.callback(process.communicate)
        self._stack.callback(process.kill)
        stdout: IO[str] = process.stdout  # type: ignore[assignment]
        said = stdout.readline()
        assert said.startswith(first_words), (said, (self.folder / "stderr.log").read_text())
        return process, said

    def example(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an example to its end."""
        return subprocess.run(
            [sys.executable, "-W", "error", EXAMPLES / f"{name}.py", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def commands(self) -> list[tuple[Record, Any]]:
        """All commands with their records."""
        found = [record for p in range(PARTITIONS) for record in self.raw.read(COMMANDS, p)]
        return [(record, avro.decode_command(record.value or b"")) for record in found]

    def reports(self, task: ActivityTask) -> list[Any]:
        """What workers said of a delivery."""
        return [
            command
            for _, command in self.commands()
            if (getattr(command, "run_id", ""), getattr(command, "dispatch", 0))
            == (task.run_id, task.dispatch)
        ]

    def task_of(self, workflow_id: str) -> tuple[Record, ActivityTask]:
        """The one delivery to a workflow's worker."""
        records = [record for p in range(32) for record in self.raw.read(TASKS, p)]
        tasks = [(record, avro.decode(record.value or b"", TASKS)) for record in records]
        (found,) = [pair for pair in tasks if pair[1].workflow_id == workflow_id]
        return found


@pytest.fixture(scope="module")
def stage(kafka: Shared, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    namespace = f"test-{uuid.uuid4().hex[:12]}"
    with ExitStack() as stack:
        yield Stage(kafka.bootstrap, namespace, tmp_path_factory.mktemp("wire"), stack)


@pytest.fixture
def worker(stage: Stage) -> subprocess.Popen[str]:
    """`examples/kafka_worker.py`, which ends with the test or before."""
    script = [sys.executable, "-W", "error", str(EXAMPLES / "kafka_worker.py")]
    process, _ = stage.start(script, "serving the queue 'measuring'")
    return process


def astray(prefix: str) -> str:
    """A workflow id that librdkafka's default partitioner puts on a wrong partition."""
    ids = (f"{prefix}-{n}" for n in range(100))
    return next(id for id in ids if zlib.crc32(id.encode()) % PARTITIONS != partition_of(id, PARTITIONS))


def test_a_start_in_json_by_the_default_partitioner_is_forwarded(stage: Stage) -> None:
    id = astray("astray")
    wrong, home = zlib.crc32(id.encode()) % PARTITIONS, partition_of(id, PARTITIONS)
    done = stage.example("kafka_start", "Measurement", id, '"kitchen"')
    assert done.returncode == 0, done.stderr
    assert f"partition {wrong}, offset " in done.stdout
    answer = stage.bare.ask(command="QueryWorkflow", workflow_id=id, query_name="__stack")
    assert (answer["rejection"], answer["failure"]) == ("", None)
    starts = [
        (record.partition, command)
        for record, command in stage.commands()
        if isinstance(command, StartWorkflow) and command.workflow_id == id
    ]
    assert [partition for partition, _ in sorted(starts, key=lambda at: at[0] == home)] == [wrong, home]
    assert starts[0][1] == starts[1][1], "it keeps its request id"
    told = stage.example("kafka_history", id)
    assert told.returncode == 0, told.stderr
    assert [line.split()[1] for line in told.stdout.splitlines()[1:]] == [
        "WorkflowStarted",
        "ActivityScheduled",
    ]
    stage.bare.ask(command="TerminateWorkflow", workflow_id=id, reason="seen enough")


def test_a_repeat_is_answered_as_the_original_was(stage: Stage) -> None:
    start = {"command": "StartWorkflow", "workflow_type": "Measurement", "input": ["attic"]}
    first = stage.bare.ask(workflow_id="twice", request_id="once", **start)
    assert first["run_id"]
    assert stage.bare.ask(workflow_id="twice", request_id="once", **start)["run_id"] == first["run_id"]
    other = stage.bare.ask(workflow_id="twice", request_id="other", **start)
    assert (other["rejection"], other["run_id"]) == ("workflow-already-started", first["run_id"])
    stage.bare.ask(command="TerminateWorkflow", workflow_id="twice")
    closed = stage.bare.ask(command="AwaitResult", workflow_id="twice")
    assert (closed["status"], closed["failure"]["kind"]) == ("Terminated", "terminated")


def test_a_worker_without_the_library(stage: Stage, worker: subprocess.Popen[str]) -> None:
    done = stage.example("kafka_start", "Measurement", "kitchen", '"kitchen"')
    assert done.returncode == 0, done.stderr
    answer = stage.bare.ask(command="AwaitResult", workflow_id="kitchen")
    assert answer["status"] == "Completed", answer
    assert json.loads(answer["result"]["data"]) == "kitchen: 70 °F, measured over Kafka"
    told = stage.example("kafka_history", "kitchen")
    assert told.returncode == 0, told.stderr
    run, *events = told.stdout.splitlines()
    assert run == f"run {answer['run_id']}"
    kinds = [line.split()[1] for line in events]
    assert [kind for kind in kinds if kind != "ActivitiesDispatched"] == [  # if it beat after the start
        "WorkflowStarted",
        "ActivityScheduled",
        "ActivityCompleted",
        "WorkflowCompleted",
    ]
    assert [line.split()[0] for line in events] == [str(number) for number in range(1, len(kinds) + 1)]

    # The coordinators may send a delivery again; and one that may be forgotten is not started.
    record, task = stage.task_of("kitchen")
    again = replace(task, dispatch=2, dispatched_time_ms=record.time_ms)
    stale = replace(task, dispatch=3, dispatched_time_ms=record.time_ms - 30_001)
    for value in (record.value or b"", avro.encode(again), avro.encode(again), avro.encode(stale)):
        stage.raw.append(TASKS, record.partition, value, headers=record.headers)
    failing = stage.bare.ask(
        command="StartWorkflow",
        workflow_type="Measurement",
        workflow_id="attic",
        input=["attic"],
        await_result=True,
    )
    assert failing["status"] == "Completed", failing
    assert [type(report) for report in stage.reports(task)] == [CompleteActivity], "a repeat was run"
    assert [type(report) for report in stage.reports(again)] == [CompleteActivity], "a repeat was run"
    (returned,) = stage.reports(stale)
    assert isinstance(returned, ReturnActivity)
    assert returned.reason == "stale"

    worker.send_signal(signal.SIGINT)
    assert worker.wait(TIMEOUT_S) == 0
    beats = [avro.decode(found.value or b"", WORKERS) for found in stage.raw.read(WORKERS, 0)]
    mine = [beat for beat in beats if isinstance(beat, WorkerBeat) and beat.worker == task.worker]
    assert [beat.number for beat in mine] == list(range(1, len(mine) + 1))
    assert [beat.stopped for beat in mine] == [False] * (len(mine) - 1) + [True]


def test_the_command_line_speaks_kafka(stage: Stage) -> None:
    kafka = stage.environment["ORCHESTRATOR_LOG"]

    def run(*arguments: str, code: int = 0, view: str = "") -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, "workflow", *arguments],
            env={**stage.environment, "ORCHESTRATOR_ADDRESS": kafka, "ORCHESTRATOR_VIEW": view},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        assert done.stderr.count("\n") <= 1, (arguments, done.stderr)
        return done

    started = run("start", "Measurement", "--id", "by-hand", "-i", '"attic"', "-o", "json")
    run_id = json.loads(started.stdout)[0]["run_id"]
    assert "execute_activity" in run("query", "by-hand", "__stack").stdout
    assert "no signal 'open'" in run("signal", "by-hand", "open", code=4).stderr
    assert "nobody says within 0.1 s" in run("result", "by-hand", "--timeout", "0.1", code=124).stderr
    assert run("cancel", "by-hand", "--reason", "cold").stderr == "cancel: by-hand\n"
    assert "its status is Canceled" in run("result", "by-hand", code=5).stderr
    assert json.loads(run("result", "by-hand", "-o", "json", code=5).stdout)["run_id"] == run_id
    assert "no open workflow id 'nix'" in run("terminate", "nix", code=4).stderr

    assert "name one with --view or $ORCHESTRATOR_VIEW" in run("list", code=2).stderr
    data = ("--data", str(stage.folder / "view"), "--port", "0")
    _, said = stage.start([*COMMAND, "view", *data], "ready: http://")
    view = said.split()[1]
    assert run("list", "--id-prefix", "by-", "-o", "ids", view=view).stdout == "by-hand\n"
    assert json.loads(run("describe", "by-hand", "-o", "json", view=view).stdout)["row"]["run_id"] == run_id
    assert "WorkflowCancelRequested" in run("show", "by-hand", view=view).stdout


def test_commands_in_a_transaction_count_when_it_is_committed(stage: Stage) -> None:
    """An open transaction of somebody else does not hold up other partitions, nor an aborted one its own."""
    topic = stage.raw.full(COMMANDS_TX)

    def producer(name: str) -> Producer:
        server = stage.environment["ORCHESTRATOR_LOG"].removeprefix("kafka://")
        made = Producer({"bootstrap.servers": server, "transactional.id": f"{topic}-{name}"})
        made.init_transactions(SOON_S)
        made.begin_transaction()
        return made

    def start(id: str) -> bytes:
        command = {
            "command": "StartWorkflow",
            "workflow_id": id,
            "workflow_type": "Measurement",
            "input": ["x"],
        }
        return json.dumps(command).encode()

    aborting, committing = producer("aborting"), producer("committing")
    for made, word in ((aborting, "aborted"), (committing, "committed")):
        for number in range(PARTITIONS):
            made.produce(topic, start(f"{word}-{number}"), partition=number)
        made.flush(SOON_S)
    aborting.abort_transaction(SOON_S)
    committing.commit_transaction(SOON_S)
    for number in range(PARTITIONS):
        question = {"command": "QueryWorkflow", "workflow_id": f"committed-{number}", "query_name": "__stack"}
        while stage.bare.ask(**question)["rejection"]:
            pass  # it is on its way
        never = stage.bare.ask(command="QueryWorkflow", workflow_id=f"aborted-{number}", query_name="__stack")
        assert never["rejection"] == "workflow-not-found"
        stage.bare.ask(command="TerminateWorkflow", workflow_id=f"committed-{number}")
    forwarded = {command.request_id for _, command in stage.commands()}
    # The aborted one is at offset 0 of each partition, and seen by nobody.
    assert {f"commands-tx-{number}-1" for number in range(PARTITIONS)} <= forwarded
    assert {f"commands-tx-{number}-0" for number in range(PARTITIONS)}.isdisjoint(forwarded)


class Registry(BaseHTTPRequestHandler):
    """Gives ids to schemas, from 1001 on."""

    schemas: ClassVar[dict[str, str]] = {}

    def do_POST(self) -> None:
        subject = self.path.removeprefix("/subjects/").removesuffix("/versions")
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fastavro.parse_schema(json.loads(body["schema"]))
        self.schemas.setdefault(subject, body["schema"])
        answer = json.dumps({"id": 1001 + list(self.schemas).index(subject)}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


def test_the_ids_of_a_registry_are_written(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    """And nobody needs the registry any more."""
    where = ("--log", f"kafka://{kafka.bootstrap}", "--namespace", namespace, "--partitions", str(PARTITIONS))
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever).start()
        registry = f"http://127.0.0.1:{server.server_port}"
        made = command("topic", "create", *where, "--registry", registry, folder=tmp_path)
        server.shutdown()
    assert made.returncode == 0, made.stderr
    away = command("topic", "create", *where, "--registry", registry, folder=tmp_path)
    assert away.returncode == 1
    assert f"no schema registry answers at {registry}" in away.stderr

    ids = {subject: 1001 + place for place, subject in enumerate(Registry.schemas)}
    with ExitStack() as stack:
        stage = Stage(kafka.bootstrap, namespace, tmp_path, stack)
        answer = stage.bare.ask(
            command="StartWorkflow", workflow_id="w", workflow_type="Measurement", input=["x"]
        )
        assert answer["run_id"]
        home = partition_of("w", PARTITIONS)
        for topic, partition in ((HISTORY, home), (REPLIES, stage.bare.reply_to["partition"]), (WORKERS, 0)):
            for record in stage.raw.read(topic, partition):
                assert record.value is not None
                assert int.from_bytes(record.value[1:5], "big") == ids[f"{namespace}.{topic}-value"]
        keys = {record.key for record in stage.raw.read(META, 0)}
        assert {b"schema/%d" % number for number in ids.values()} <= keys, (
            "who has no registry finds them there"
        )
