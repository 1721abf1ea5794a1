"""``orchestrator topic`` on a real broker."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from orchestrator.codec import avro
from orchestrator.codec.payloads import DEFAULT
from orchestrator.protocol.commands import StartWorkflow
from tests.e2e.dev_process import COMMAND, command
from tests.kafka.raw import RawLog
from tests.kafka.shared import Shared

pytestmark = pytest.mark.kafka


def test_topics_are_made_and_listed(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    where = ("--log", f"kafka://{kafka.bootstrap}", "--namespace", namespace)

    def topics(*arguments: str) -> tuple[str, str]:
        done = command("topic", *arguments, *where, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    missing = json.loads(topics("list", "-o", "json")[0])
    assert {topic["state"] for topic in missing} == {"missing"}

    made, said = topics("create", "--partitions", "2", "--replication-factor", "1")
    assert made.splitlines()[0].split() == ["TOPIC", "STATE", "PARTITIONS", "REPLICAS", "RECORDS"]
    assert made.splitlines()[1].split() == [f"{namespace}.commands", "created", "2", "1"]
    assert said == f"namespace {namespace}: {len(missing)} topics made, 0 were there\n"
    assert topics("create")[1] == f"namespace {namespace}: 0 topics made, {len(missing)} were there\n"
    assert topics("list", "-o", "ids")[0].splitlines() == [topic["name"] for topic in missing]

    refused = command("topic", "create", "--partitions", "3", *where, folder=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: the namespace '{namespace}' was made with 2 partitions, not 3;")


def test_what_stands_on_a_topic_is_shown(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    raw = RawLog(kafka.bootstrap, namespace)
    raw.create_topics(partitions=2)
    where = ("--log", f"kafka://{kafka.bootstrap}", "--namespace", namespace)
    start = StartWorkflow(workflow_id="o-1", workflow_type="Order", input=DEFAULT.to_payloads(["Ann", 3]))
    raw.append("commands", 0, avro.encode(start), key=b"o-1", headers={"from": b"shop"})
    raw.append("commands", 0, b"garbage", key=b"\xff")
    raw.append("commands", 1, b'{"command": "SignalWorkflow", "workflow_id": "o-1", "signal_name": "pay"}')

    def tail(*arguments: str) -> list[str]:
        done = command("topic", "tail", *arguments, *where, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    started, garbage, signalled = tail("commands")
    assert "commands-0@0  StartWorkflow  o-1  {" in started
    assert '"input":["Ann",3]' in started
    assert "commands-0@1  undecodable  \\xff  found b'garbage'" in garbage
    assert "commands-1@0  SignalWorkflow  {" in signalled
    (only,) = tail("commands", "--partition", "0", "--limit", "2", "-o", "jsonl")[:1]
    assert json.loads(only)["headers"] == {"from": "shop"}
    assert len(tail("commands", "--partition", "0", "--limit", "1")) == 1
    assert [json.loads(line)["key"] for line in tail("meta", "-o", "jsonl")] == ["namespace"]
    for arguments, said in ((("nix",), "the topics are commands"), (("meta", "--partition", "1"), "0 to 0")):
        refused = command("topic", "tail", *arguments, *where, folder=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert said in refused.stderr


def test_what_comes_is_shown_until_ctrl_c(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    raw = RawLog(kafka.bootstrap, namespace)
    raw.create_topics(partitions=1)
    raw.append("commands", 0, b"first")
    where = ("--log", f"kafka://{kafka.bootstrap}", "--namespace", namespace)
    line = (*COMMAND, "topic", "tail", "commands", "-f", *where)
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as tail:
        assert tail.stdout is not None
        assert "first" in tail.stdout.readline()
        raw.append("commands", 0, b"second")
        assert "second" in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.communicate(timeout=30) == ("", "")
    assert tail.returncode == 130


def test_mistakes_are_one_message(kafka: Shared, tmp_path: Path) -> None:
    (tmp_path / "kafka.properties").write_text("linger.msec=5\n")
    log = ("--log", f"kafka://{kafka.bootstrap}")
    table: list[tuple[tuple[str, ...], int, str]] = [
        ((), 2, "which Kafka? Name it with --log or $ORCHESTRATOR_LOG"),
        (("--log", "http://127.0.0.1:9092"), 2, "expected one like 'kafka://127.0.0.1:9092'"),
        ((*log, "--namespace", "a.b"), 2, "letters, digits, - and _"),
        ((*log, "--kafka-config", "nix"), 2, "cannot be read: No such file"),
        ((*log, "--kafka-config", "kafka.properties"), 2, "'linger.msec' is refused: No such configuration"),
        (("--log", "kafka://127.0.0.1:1"), 1, "no Kafka answers at 127.0.0.1:1 within 8 s"),
        ((*log, "--partitions", "0"), 2, "--partitions is 0; it is at least 1"),
        ((*log, "--replication-factor", "0"), 2, "--replication-factor is 0"),
        ((*log, "--replication-factor", "7", "--namespace", "none"), 1, "INVALID_REPLICATION_FACTOR"),
    ]
    for arguments, code, words in table:
        done = command("topic", "create", *arguments, folder=tmp_path)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert done.stderr.startswith("error: "), (arguments, done.stderr)
        assert words in done.stderr, (arguments, done.stderr)
        assert done.stderr.count("\n") == 1, (arguments, done.stderr)
