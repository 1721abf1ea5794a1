"""``orchestrator doctor`` on a real broker: what is wrong is found, all of it, and said with what to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)
from msgspec.structs import replace

from orchestrator import cli
from orchestrator.codec import avro
from orchestrator.log.kafka import checkup
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.letters import letter_of, letter_record
from orchestrator.log.port import Record
from orchestrator.protocol.tasks import Beat, CoordinatorBeat, WorkerBeat
from orchestrator.telemetry.versions import version
from tests.kafka.broker import USERS
from tests.kafka.raw import SOON_S, RawLog
from tests.kafka.shared import Shared

pytestmark = pytest.mark.kafka

Findings = list[dict[str, str]]
Doctor = Callable[..., tuple[int, Findings]]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody beats here unless a test does."""
    monkeypatch.setattr(checkup, "LISTEN_S", 0.1)


@pytest.fixture
def doctor(kafka: Shared, namespace: str, capsys: pytest.CaptureFixture[str]) -> Doctor:
    def doctor(*arguments: str, bootstrap: str = kafka.bootstrap) -> tuple[int, Findings]:
        where = ("--log", f"kafka://{bootstrap}", "--namespace", namespace)
        code = cli.run(("doctor", *where, "-o", "json", *arguments))
        return code, json.loads(capsys.readouterr().out)

    return doctor


@pytest.fixture
def raw(kafka: Shared, namespace: str) -> RawLog:
    made = RawLog(kafka.bootstrap, namespace)
    made.create_topics(partitions=2)
    return made


def states(found: Findings) -> dict[str, str]:
    return {finding["what"]: finding["state"] for finding in found}


def about(found: Findings, what: str) -> list[str]:
    return [f"{one['found']} → {one['advice']}" for one in found if one["what"] == what]


WORKER = WorkerBeat(
    worker="w",
    identity="",
    task_queues=("default",),
    slots=7,
    running=0,
    inbox=0,
    inbox_offset=0,
    number=1,
    version=version(),
)
COORDINATOR = CoordinatorBeat(coordinator="c", identity="", number=1, partitions=(0, 1), version=version())


def beats(raw: RawLog, *found: Beat) -> None:
    for beat in found:
        name = beat.worker if isinstance(beat, WorkerBeat) else beat.coordinator
        raw.append("workers", 0, avro.encode(beat), key=name.encode())


def test_a_namespace_that_was_never_made_has_failed(doctor: Doctor) -> None:
    code, found = doctor()
    assert code == 1
    assert states(found) == {"versions": "ok", "broker": "ok", "namespace": "failed"}
    assert "orchestrator topic create" in found[-1]["advice"] + found[-1]["found"]


def test_a_namespace_where_nothing_runs_yet_is_worth_warnings(doctor: Doctor, raw: RawLog) -> None:
    code, found = doctor()
    assert code == 0
    wrong = {what: state for what, state in states(found).items() if state != "ok"}
    assert wrong == dict.fromkeys(("clock", "coordinators", "workers"), "warning")


def test_everything_that_is_wrong_is_said_at_once(doctor: Doctor, raw: RawLog) -> None:
    for done in raw.admin.delete_topics([raw.full("dead-letters"), raw.full("history")]).values():
        done.result(SOON_S)
    raw.configure("commands", "max.message.bytes", "1000")
    code, found = doctor()
    assert code == 1
    missing = " ".join(about(found, "topics"))
    assert f"{raw.full('history')} is missing" in missing
    assert f"{raw.full('dead-letters')} is missing" in missing
    assert "max.message.bytes is 1000" in about(found, "settings")[0]
    assert "members" not in states(found)


def test_what_nobody_could_use_is_counted(doctor: Doctor, raw: RawLog) -> None:
    letter = letter_record(letter_of(Record("commands", 0, 3, 0, b"", b"garbage", {}), "no command"))
    raw.append("dead-letters", 0, letter.value, key=letter.key)
    _, found = doctor()
    assert about(found, "dead letters")[0].startswith("1 records")


def test_members_are_heard(doctor: Doctor, raw: RawLog) -> None:
    beats(raw, replace(COORDINATOR, partitions=(1,)), WORKER, replace(WORKER, worker="gone", stopped=True))
    code, found = doctor()
    assert code == 0
    assert about(found, "coordinators") == ["1 → "]
    assert about(found, "workers") == ["1, with 7 slots → "]
    assert about(found, "owners")[0].startswith("nobody owns the partitions 0 →")
    assert "mixed versions" not in states(found)


def test_versions_side_by_side_are_a_warning(doctor: Doctor, raw: RawLog) -> None:
    beats(raw, COORDINATOR, replace(WORKER, version="0.0.1"))
    _, found = doctor()
    assert about(found, "mixed versions")[0].startswith(f"0.0.1, {version()} run side by side →")


def test_clocks_are_held_against_a_beat_that_comes_now(
    kafka: Shared, namespace: str, raw: RawLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "LISTEN_S", SOON_S)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            beats(raw, COORDINATOR)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        heard = checkup.listen(KafkaSettings(kafka.bootstrap, namespace))
    finally:
        ended.set()
        beating.join()
    assert heard.ahead_ms is not None
    assert abs(heard.ahead_ms) < 5_000
    assert heard.partitions == 2
    assert heard.beats


def test_who_may_only_be_a_worker_is_told_so(
    kafka: Shared, namespace: str, raw: RawLog, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"):
        acl = AclBinding(
            ResourceType.TOPIC,
            f"{namespace}.",
            ResourcePatternType.PREFIXED,
            "User:bob",
            "*",
            AclOperation[name],
            AclPermissionType.ALLOW,
        )
        for done in raw.admin.create_acls([acl]).values():
            done.result(SOON_S)
    options = {
        "SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "SASL_MECHANISM": "PLAIN",
        "SASL_USERNAME": "bob",
        "SASL_PASSWORD": USERS["bob"],
    }
    for name, value in options.items():
        monkeypatch.setenv(f"ORCHESTRATOR_KAFKA_{name}", value)
    code, found = doctor(bootstrap=kafka.secured_bootstrap)
    assert code == 0
    may_not, may = about(found, "rights")
    assert may_not.startswith("a coordinator needs DELETE on")
    assert may == "this user may be a worker, a view, a client → "


def test_no_broker_is_one_line(doctor: Doctor) -> None:
    code, found = doctor(bootstrap="127.0.0.1:1")
    assert code == 1
    assert states(found) == {"versions": "ok", "broker": "failed"}
