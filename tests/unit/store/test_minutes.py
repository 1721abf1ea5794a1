"""What happened per minute: counted once each, kept for a day, in the batch of what it counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.protocol import events as e
from orchestrator.store import keys, minutes
from orchestrator.store.fold import HistoryFold
from orchestrator.store.listing import Listing
from orchestrator.store.minutes import MINUTE_MS
from orchestrator.store.partition_store import PartitionStore
from tests.unit.store.test_indexes import Writer, failed, scheduled


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "store")
    yield writer
    writer.store.close()


def seen(store: PartitionStore) -> dict[int, tuple[int, int, int]]:
    return {
        number: (row.started, row.completed, row.failed) for number, row in Listing(store).minutes().items()
    }


def reopened(writer: Writer) -> dict[int, tuple[int, int, int]]:
    """As the rows say, whatever memory says."""
    folder = writer.store.folder
    writer.store.close()
    writer.store = PartitionStore(folder, log_id="log", indexed=True)
    writer.fold = HistoryFold(writer.store)
    return seen(writer.store)


def test_a_run_counts_when_it_starts_and_when_it_closes(writer: Writer) -> None:
    writer.turn(1, at_ms=5 * MINUTE_MS)
    writer.turn(2, scheduled(1), at_ms=6 * MINUTE_MS - 1)
    writer.turn(1, e.WorkflowSignaled(signal_name="s"), at_ms=6 * MINUTE_MS)
    writer.turn(1, e.WorkflowCompleted(), at_ms=7 * MINUTE_MS)
    writer.turn(2, failed("x"), at_ms=7 * MINUTE_MS)
    writer.turn(3, e.WorkflowTerminated(), at_ms=7 * MINUTE_MS + 9)
    expected = {5: (2, 0, 0), 7: (1, 1, 2)}
    assert seen(writer.store) == expected
    assert reopened(writer) == expected


def test_a_run_that_comes_and_goes_between_two_flushes_counts_as_both(writer: Writer) -> None:
    writer.turn(1, scheduled(1), at_ms=MINUTE_MS, flush=False)
    writer.turn(1, e.WorkflowCompleted(), at_ms=2 * MINUTE_MS)
    assert reopened(writer) == {1: (1, 0, 0), 2: (0, 1, 0)}


def test_what_was_not_flushed_is_not_counted_twice(writer: Writer) -> None:
    """The same turns are folded again after a crash, and the rows stand where the checkpoint stands."""
    writer.turn(1, at_ms=MINUTE_MS)
    writer.turn(1, e.WorkflowCompleted(), at_ms=MINUTE_MS, flush=False)
    assert reopened(writer) == {1: (1, 0, 0)}
    writer.next[1] = (2, 2)
    writer.turn(1, e.WorkflowCompleted(), at_ms=MINUTE_MS)
    assert reopened(writer) == {1: (1, 1, 0)}


def test_what_leaves_the_store_has_happened_all_the_same(writer: Writer) -> None:
    writer.turn(1, e.WorkflowCompleted(), at_ms=MINUTE_MS)
    writer.fold.erase(f"{1:032x}/1/1".encode(), writer.fold.next_offset)
    writer.fold.flush()
    assert Listing(writer.store).counts() == {}
    assert reopened(writer) == {1: (1, 1, 0)}


def test_old_minutes_are_deleted(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minutes, "MAX_MINUTES", 3)
    for number in range(1, 6):
        writer.turn(number, at_ms=number * MINUTE_MS)
    expected = {3: (1, 0, 0), 4: (1, 0, 0), 5: (1, 0, 0)}
    assert seen(writer.store) == expected
    assert reopened(writer) == expected
    writer.turn(9, at_ms=MINUTE_MS)  # of a clock that was late: too old to be kept
    assert reopened(writer) == expected
    assert len(list(writer.store.scan(keys.MINUTES, keys.MINUTES + b"\xff" * 9))) == 3
