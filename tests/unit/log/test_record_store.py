from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConfigError, LogError
from orchestrator.log.port import Record
from orchestrator.log.record_store import RecordStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RecordStore]:
    opened = RecordStore(tmp_path / "log", create=True)
    yield opened
    opened.close()


def record(offset: int, topic: str = "history", partition: int = 0, value: bytes | None = b"v") -> Record:
    return Record(topic, partition, offset, 1_000 + offset, b"k%d" % offset, value, {})


RECORDS = st.builds(
    Record,
    st.just("history"),
    st.just(7),
    st.just(5),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=50),
    st.none() | st.binary(max_size=50),
    st.dictionaries(st.text(max_size=10), st.binary(max_size=10), max_size=3),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(RECORDS)
def test_a_record_comes_back_as_it_was_written(store: RecordStore, written: Record) -> None:
    store.write([written])
    assert list(store.scan("history", 7, 0, 100)) == [written]


def test_a_scan_stays_within_its_partition_and_bounds(store: RecordStore) -> None:
    store.write(record(n) for n in (0, 1, 255, 256, 2**40))
    store.write([record(0, partition=1), record(1, topic="histor"), record(2, topic="history2")])
    assert [r.offset for r in store.scan("history", 0, 0, 2**50)] == [0, 1, 255, 256, 2**40]
    assert [r.offset for r in store.scan("history", 0, 1, 256)] == [1, 255]
    assert [r.offset for r in store.scan("history", 2, 0, 100)] == []


def test_the_last_offset_is_of_that_partition(store: RecordStore) -> None:
    assert store.last_offset("history", 0) is None
    store.write([record(3), record(300), record(4, partition=1)])
    assert [store.last_offset("history", p) for p in range(3)] == [300, 4, None]
    assert store.last_offset("histor", 0) is None


def test_deleting_single_records_and_ranges(store: RecordStore) -> None:
    store.write(record(n) for n in range(10))
    store.delete("history", 0, [1, 8])
    store.delete_range("history", 0, 3, 6)
    assert [r.offset for r in store.scan("history", 0, 0, 100)] == [0, 2, 6, 7, 9]


def test_marks_and_records_are_there_after_opening_again(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "log", create=True)
    store.write([record(1)])
    store.put_marks({"a": b"1", "b": b"2"})
    store.sync()
    store.close()
    store.close()
    with pytest.raises(LogError):
        store.mark("a")
    again = RecordStore(tmp_path / "log", create=False)
    assert (again.mark("a"), again.mark("b"), again.mark("c")) == (b"1", b"2", None)
    assert list(again.scan("history", 0, 0, 9)) == [record(1)]
    again.close()


def crashed(tmp_path: Path) -> Path:
    """A log of 200 records as a crash leaves it: everything is in the write-ahead log still."""
    store = RecordStore(tmp_path / "alive", create=True)
    for n in range(200):
        store.write([record(n, value=b"x" * 1_000)])
    store.sync()
    shutil.copytree(tmp_path / "alive", tmp_path / "crashed")
    store.close()
    return tmp_path / "crashed"


def test_a_missing_log_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        RecordStore(tmp_path / "log", create=False)


def test_damage_in_the_middle_is_an_error_not_a_shorter_log(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    [wal] = path.glob("*.log")
    data = bytearray(wal.read_bytes())
    data[len(data) // 2] ^= 0xFF
    wal.write_bytes(data)
    with pytest.raises(ConfigError, match=r"cannot be opened: .*Corruption.*restore the folder from a copy"):
        RecordStore(path, create=True)


def test_a_torn_last_record_was_never_acknowledged(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    [wal] = path.glob("*.log")
    wal.write_bytes(wal.read_bytes()[:-100])
    store = RecordStore(path, create=True)
    assert [r.offset for r in store.scan("history", 0, 0, 1_000)] == list(range(199))
    store.close()


def test_a_damaged_table_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    path = crashed(tmp_path)
    RecordStore(path, create=True).close()  # moves the records from the write-ahead log into a table
    [table] = path.glob("*.sst")
    data = bytearray(table.read_bytes())
    data[len(data) // 3] ^= 0xFF
    table.write_bytes(data)
    with pytest.raises((LogError, ConfigError), match="orruption"):
        list(RecordStore(path, create=True).scan("history", 0, 0, 1_000))
