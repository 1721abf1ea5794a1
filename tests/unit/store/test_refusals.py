"""What was refused lately is refused again, over restarts, and takes no more room than it may."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from rocksdict import DbClosedError

from orchestrator.protocol.commands import Rejection
from orchestrator.store import refusals
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.refusals import KEPT_MS, Refusals
from orchestrator.store.rows import Row

NO = Rejection(reason="workflow-closed", message="it is closed", run_id="r")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PartitionStore]:
    store = PartitionStore(tmp_path / "p", log_id="log")
    yield store
    with contextlib.suppress(DbClosedError):
        store.close()


def write(store: PartitionStore, rows: list[Row]) -> None:
    store.apply(rows, store.checkpoint)


def rows_left(store: PartitionStore) -> int:
    return len(list(store.refusals(b"")))


def test_a_refusal_is_found_before_and_after_it_is_written(store: PartitionStore) -> None:
    kept = Refusals(store)
    assert kept.find("a", "1", 0) is None
    kept.note("a", "1", NO, 0)
    assert kept.find("a", "1", 0) == NO
    write(store, kept.take_rows())
    assert kept.take_rows() == []
    assert kept.find("a", "1", 0) == NO
    assert (kept.find("a", "2", 0), kept.find("b", "1", 0)) == (None, None)


def test_it_outlives_the_process_and_not_its_time(store: PartitionStore) -> None:
    kept = Refusals(store)
    kept.note("a", "1", NO, 1_000)
    write(store, kept.take_rows())
    store.close()
    store = PartitionStore(store.folder, log_id="log")
    again = Refusals(store)
    assert again.find("a", "1", 1_000 + KEPT_MS - 1) == NO
    assert again.find("a", "1", 1_000 + KEPT_MS) is None
    store.close()


def test_what_has_had_its_time_leaves_the_store(store: PartitionStore) -> None:
    kept = Refusals(store)
    for n in range(10):
        kept.note("a", str(n), NO, n)
    write(store, kept.take_rows())
    write(store, kept.forget(KEPT_MS + 4))
    assert rows_left(store) == 5
    assert kept.find("a", "5", 0) == NO
    assert kept.forget(KEPT_MS + 4) == []
    write(store, kept.forget(KEPT_MS + 9))
    assert rows_left(store) == 0
    assert kept.find("a", "9", 0) is None


def test_a_step_forgets_a_few_at_a_time_and_the_next_one_goes_on(
    store: PartitionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "FORGET_ROWS", 4)
    kept = Refusals(store)
    for n in range(10):
        kept.note("a", str(n), NO, n)
    write(store, kept.take_rows())
    left = []
    for _ in range(4):
        write(store, kept.forget(2 * KEPT_MS))
        left.append(rows_left(store))
    assert left == [6, 2, 0, 0]


def test_the_oldest_go_first_when_there_are_too_many(
    store: PartitionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "MAX_KEPT", 3)
    kept = Refusals(store)
    for n in range(5):
        kept.note("a", str(n), NO, n)
    write(store, kept.take_rows())
    write(store, kept.forget(10))
    assert [n for n in range(5) if kept.find("a", str(n), 10) is not None] == [2, 3, 4]
