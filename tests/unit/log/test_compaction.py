from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.log import compaction
from orchestrator.log.compaction import compact_partition
from orchestrator.log.port import Record
from orchestrator.log.record_store import RecordStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RecordStore]:
    opened = RecordStore(tmp_path / "log", create=True)
    yield opened
    opened.close()


def write(store: RecordStore, partition: int, keys: str, *, first: int = 0) -> None:
    """Each character is a record at offset = time = its place: a letter, or its capital as a tombstone."""
    store.write(
        Record("history", partition, n, n, key.lower().encode(), None if key.isupper() else b"v", {})
        for n, key in enumerate(keys, first)
    )


def left(store: RecordStore, partition: int = 0) -> str:
    return "".join(
        record.key.decode() if record.value is not None else record.key.decode().upper()
        for record in store.scan("history", partition, 0, 10_000)
    )


def compact(
    store: RecordStore, keys: str, *, partition: int = 0, settled: int = 10_000, tombstones: int = 10_000
) -> int:
    return compact_partition(
        store,
        "history",
        partition,
        start=0,
        end=len(keys),
        settled_before_ms=settled,
        tombstones_before_ms=tombstones,
    )


@pytest.mark.parametrize(
    ("keys", "settled", "tombstones", "expected"),
    [
        ("abc", 99, 99, "abc"),
        ("aab", 99, 99, "ab"),
        ("aAb", 99, 99, "b"),
        ("aAb", 99, 1, "Ab"),  # the tombstone is too young
        ("aA", 99, 99, "aA"),  # the last record is not looked at
        ("abcb", 99, 99, "abcb"),
        ("aabb", 1, 99, "aabb"),  # the second a is too young to supersede
        ("aabbc", 3, 99, "abbc"),
        ("AaBbc", 99, 99, "abc"),
        ("", 99, 99, ""),
    ],
)
def test_what_stays(store: RecordStore, keys: str, settled: int, tombstones: int, expected: str) -> None:
    write(store, 0, keys)
    assert compact(store, keys, settled=settled, tombstones=tombstones) == len(keys) - len(expected)
    assert left(store) == expected


def test_it_goes_on_where_it_ended(store: RecordStore) -> None:
    write(store, 0, "aab")
    assert compact(store, "aab") == 1
    write(store, 0, "bcad", first=3)
    assert compact(store, "aabbcad") == 2
    assert left(store) == "bcad"
    assert compact(store, "aabbcad") == 0


partitions = iter(range(60_000))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.text("abcABC", max_size=30),
    st.integers(0, 30),
    st.integers(0, 30),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_whatever_was_the_truth_stays_the_truth(
    store: RecordStore, keys: str, settled: int, tombstones: int, map_keys: int, batch: int
) -> None:
    partition = next(partitions)
    write(store, partition, keys)
    with pytest.MonkeyPatch.context() as limits:
        limits.setattr(compaction, "MAP_KEYS", map_keys)
        limits.setattr(compaction, "DELETE_BATCH_RECORDS", batch)
        compact(store, keys, partition=partition, settled=settled, tombstones=tombstones)
    remaining = left(store, partition)
    latest = {key.lower(): key for key in keys}
    after = {key.lower(): key for key in remaining}
    assert {k: v for k, v in latest.items() if v.islower()} == {k: v for k, v in after.items() if v.islower()}
    assert remaining[-1:] == keys[-1:]
    young = keys[min(settled, tombstones) :]
    assert remaining.endswith(young) or min(settled, tombstones) < settled
