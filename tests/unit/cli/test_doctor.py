"""What `orchestrator doctor` says of members, and of an address; on a broker: tests/kafka/test_doctor.py."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest

from orchestrator import cli
from orchestrator.cli import checks
from orchestrator.protocol.records import FEATURE_LEVEL
from orchestrator.protocol.tasks import CoordinatorBeat, WorkerBeat
from orchestrator.protocol.views import (
    CoordinatorSeen,
    PartitionFollowed,
    RunCounts,
    ViewStatus,
    WorkerSeen,
)
from orchestrator.telemetry.versions import version


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ADDRESS", "VIEW", "NAMESPACE", "LOG"):
        monkeypatch.delenv(f"ORCHESTRATOR_{name}", raising=False)


def owner(*partitions: int, silent_ms: int = 300, **fields: Any) -> CoordinatorSeen:
    values = {"coordinator": "c", "identity": "1@host", "number": 1, "version": version()} | fields
    return CoordinatorSeen(beat=CoordinatorBeat(partitions=partitions, **values), silent_ms=silent_ms)


def worker(silent_ms: int = 300) -> WorkerSeen:
    beat = WorkerBeat(
        worker="w",
        identity="",
        task_queues=("default",),
        slots=1_000,
        running=0,
        inbox=0,
        inbox_offset=0,
        number=1,
        version=version(),
    )
    return WorkerSeen(beat=beat, silent_ms=silent_ms)


def said(*args: Any) -> list[str]:
    return [f"{found.state} {found.what}: {found.found}" for found in checks.members(*args)]


def test_members_that_are_all_well() -> None:
    assert said([owner(0, 1)], [worker()], 2) == ["ok coordinators: 1", "ok workers: 1, with 1,000 slots"]


def test_members_that_are_not() -> None:
    newer = owner(3, silent_ms=61_000, version="9.9.9", feature_level=FEATURE_LEVEL + 1)
    assert said([owner(0), newer], [worker(silent_ms=5_001)], 5)[2:] == [
        "warning owners: nobody owns the partitions 1-2, 4",
        "warning silence: the coordinator 1@host was last heard 1 min 1 s ago",
        "warning silence: the worker w was last heard 5.001 s ago",
        f"warning mixed versions: {version()}, 9.9.9 run side by side, and of feature level 2",
    ]


def test_nobody_at_all() -> None:
    assert [line.split(":")[0] for line in said([], [], 2)] == ["warning coordinators", "warning workers"]


@pytest.mark.parametrize(
    ("ahead_ms", "state", "found"),
    [
        (4_999, "ok", "4.999 s ahead of the broker's"),
        (-200, "ok", "0.2 s behind the broker's"),
        (-5_001, "failed", "5.001 s behind the broker's"),
        (None, "warning", "nobody beats"),
    ],
)
def test_clocks(ahead_ms: int | None, state: str, found: str) -> None:
    finding = checks.clock(ahead_ms, "the broker's")
    assert finding.state == state
    assert finding.found.startswith(found)


class Fake(BaseHTTPRequestHandler):
    """Answers as a view does that is not well."""

    answers = {
        "/live": (200, b"ok\n"),
        "/ready": (503, b"history is being read\n"),
        "/api/v1/cluster": (
            200,
            msgspec.json.encode(
                ViewStatus(
                    partitions=(
                        PartitionFollowed(partition=0, offset=5, lag_records=7, ready=False, trouble="stuck"),
                    ),
                    coordinators=(owner(0),),
                    workers=(worker(),),
                    dead_letters=2,
                )
            ),
        ),
        "/api/v1/workflow-counts": (200, msgspec.json.encode(RunCounts(runs=3, counts=()))),
    }

    def do_GET(self) -> None:
        status, body = self.answers[self.path.partition("?")[0]]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Nothing."""


class Away(Fake):
    """Answers as a view does that says it is ready, though it has lost its log."""

    status = ViewStatus(
        partitions=(PartitionFollowed(partition=0, offset=5, lag_records=0, ready=True),),
        coordinators=(owner(0),),
        workers=(worker(),),
        trouble="Kafka at x:9092 does not answer",
    )
    answers = Fake.answers | {
        "/ready": (200, b"ok\n"),
        "/api/v1/cluster": (200, msgspec.json.encode(status)),
        "/api/v1/workflow-counts": (200, msgspec.json.encode(RunCounts(runs=0, counts=()))),
    }


@pytest.fixture
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), getattr(request, "param", Fake))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_wrong_at_an_address_is_a_line_each(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(("doctor", "--address", address)) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("ok")]
    assert lines == [
        "failed   ready           history is being read → wait, or do what it says",
        "warning  partitions      0: stuck → see the log of the view",
        "warning  dead letters    2 records could not be used → GET /api/v1/dead-letters shows them",
        "warning  blocked runs    3 → 'orchestrator stuck' shows them; mend the code, and deploy it",
    ]


@pytest.mark.parametrize("address", [Away], indirect=True)
def test_a_view_without_its_log_is_not_well(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(("doctor", "--address", address)) == 1
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if not line.startswith("ok")] == [
        "failed   log             Kafka at x:9092 does not answer → look at the brokers: "
        "'orchestrator doctor --log …'"
    ]
    assert "records of history to be read" not in out, "nobody knows how many"


def test_formats_for_programs(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(("doctor", "--address", address, "-o", "json"))
    whole = json.loads(capsys.readouterr().out)
    assert {*whole[0]} == {"state", "what", "found", "advice"}
    cli.run(("doctor", "--address", address, "-o", "jsonl"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["what"] for line in lines] == [finding["what"] for finding in whole]


def test_an_address_where_nobody_answers(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(("doctor", "--address", "http://127.0.0.1:1")) == 1
    assert "failed   address         http://127.0.0.1:1 does not answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--address", "ftp://x"), 2, "'ftp://x' is not understood; expected one like http://"),
        (("--namespace", "orders"), 2, "are for Kafka; name its brokers with --log"),
        (("--log", "http://x"), 2, "expected one like 'kafka://127.0.0.1:9092'"),
    ],
)
def test_what_cannot_be_meant(
    arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(("doctor", *arguments)) == code
    assert words in capsys.readouterr().err
