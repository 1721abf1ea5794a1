"""Schemas of other versions, as they come over ``meta``."""

from __future__ import annotations

from random import Random

import pytest

from orchestrator.codec import avro
from orchestrator.log.port import Record
from orchestrator.log.schemas import SCHEMA_KEY, Schemas
from orchestrator.log.simulated import Faults, SimulatedCluster
from orchestrator.log.topics import META


@pytest.fixture
def cluster() -> SimulatedCluster:
    return SimulatedCluster(Random(1), lambda: 0, faults=Faults.none())


@pytest.fixture
def learnt(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(avro, "register", lambda schema, number: found.append(schema))
    return found


def land(cluster: SimulatedCluster, key: bytes, value: bytes | None) -> None:
    cluster.land(Record(META, 0, -1, 0, key, value, {}))


def test_what_is_there_is_learnt_and_what_comes_is_brought_by_poll(
    cluster: SimulatedCluster, learnt: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.log.schemas.READ_RECORDS", 2)
    for number in range(5):
        land(cluster, SCHEMA_KEY + b"%d" % number, b"old %d" % number)
    member, schemas = cluster.member("m"), Schemas()
    schemas.follow(member)
    assert learnt == [f"old {number}" for number in range(5)]
    assert member.poll(0).records == []
    land(cluster, SCHEMA_KEY + b"9", b"new")
    land(cluster, SCHEMA_KEY + b"1", b"old again")
    land(cluster, b"namespace", b"something else")
    land(cluster, SCHEMA_KEY + b"2", None)
    assert [schemas.take(record) for record in member.poll(0).records] == [True, False, False, False]
    assert learnt[5:] == ["new"]


@pytest.mark.parametrize("value", [b"\xff", b"no schema"])
def test_what_is_no_schema_is_passed_over(
    cluster: SimulatedCluster, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    schemas = Schemas()
    assert schemas.take(Record(META, 0, 0, 0, SCHEMA_KEY + b"7", value, {})) is False
    assert "is of no use" in caplog.text


def test_ours_are_left_there_unless_they_are_there(cluster: SimulatedCluster, learnt: list[str]) -> None:
    schemas = Schemas()
    missing = dict(schemas.ours())
    assert set(missing) == {
        SCHEMA_KEY + str(number).encode() for number, _ in avro.DEFAULT.schemas().values()
    }
    for key, value in missing.items():
        land(cluster, key, value)
    schemas.follow(cluster.member("m"))
    assert dict(schemas.ours()) == {}
    assert learnt == [], "to learn one's own takes milliseconds of each start"
