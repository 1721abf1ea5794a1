"""What the property of the fold (test_fold.py) does not reach: limits, times, and fans."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.values import Failure, FailureKind
from orchestrator.store import indexes
from orchestrator.store.fold import HistoryFold
from orchestrator.store.listing import Listing
from orchestrator.store.partition_store import PartitionStore


class Writer:
    """Folds turns of runs into an indexed store."""

    def __init__(self, folder: Path) -> None:
        self.store = PartitionStore(folder, log_id="log", indexed=True)
        self.fold = HistoryFold(self.store)
        self.next: dict[int, tuple[int, int]] = {}

    def turn(self, run: int, *events: e.Event, at_ms: int = 1_000, flush: bool = True) -> None:
        number, first = self.next.get(run, (1, 1))
        if number == 1:
            events = (e.WorkflowStarted(workflow_type="Order"), *events)
        self.next[run] = number + 1, first + len(events)
        turn = Turn(
            epoch=1, seq=number, marks=Marks(), sent_through=-1, time_ms=at_ms, workflow_id=f"w-{run}",
            run_id=f"{run:032x}", turn=number, first_event_id=first, activation=Activation.DONE,
            events=events,
        )  # fmt: skip
        assert self.fold.add(turn, self.fold.next_offset) == ""
        if flush:
            self.fold.flush()

    def groups(self) -> dict[str, tuple[int, int, int]]:
        """Runs, first and last time, by message."""
        found = Listing(self.store).groups().values()
        return {group.message: (group.runs, group.first_time_ms, group.last_time_ms) for group in found}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "store")
    yield writer
    writer.store.close()


def failed(message: str) -> e.WorkflowFailed:
    return e.WorkflowFailed(failure=Failure(kind=FailureKind.APPLICATION, message=message))


def scheduled(number: int) -> e.ActivityScheduled:
    return e.ActivityScheduled(activity_id=number, activity_type="a", task_queue="q", worker="w")


def attempt(number: int, attempt: int, message: str = "x") -> e.ActivityAttemptFailed:
    failure = Failure(kind=FailureKind.APPLICATION, message=message)
    return e.ActivityAttemptFailed(activity_id=number, attempt=attempt, failure=failure, retry_time_ms=2_000)


def again(number: int, attempt: int) -> e.ActivitiesDispatched:
    dispatch = e.Dispatch(
        activity_id=number, scheduled_event_id=2, attempt=attempt, dispatch=attempt, worker="w", inbox=0
    )
    return e.ActivitiesDispatched(dispatches=(dispatch,))


def test_too_many_kinds_of_failures_are_one(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "MAX_GROUPS", 2)
    words = ["one", "two", "three", "four", "one"]
    for number, word in enumerate(words):
        writer.turn(number, failed(word))
    others = indexes.OTHERS.message
    assert {name: runs for name, (runs, _, _) in writer.groups().items()} == {"one": 2, "two": 1, others: 2}


def test_a_group_tells_when_it_came_and_when_it_was_seen_last(writer: Writer) -> None:
    writer.turn(1, scheduled(1), at_ms=1_000)
    writer.turn(1, attempt(1, 1), at_ms=2_000)
    writer.turn(1, e.WorkflowSignaled(signal_name="s"), at_ms=3_000)
    assert writer.groups() == {"x": (1, 2_000, 2_000)}, "a signal is no failure"
    writer.turn(1, again(1, 2), attempt(1, 2), at_ms=4_000)
    assert writer.groups() == {"x": (1, 2_000, 4_000)}
    writer.turn(1, again(1, 3), e.ActivityCompleted(activity_id=1), at_ms=5_000)
    assert writer.groups() == {}


def test_a_run_that_goes_on_failing_stays_in_its_group_when_it_closes(writer: Writer) -> None:
    writer.turn(1, scheduled(1), attempt(1, 1), at_ms=1_000)
    failure = Failure(kind=FailureKind.APPLICATION, message="x", activity_type="a")
    writer.turn(1, e.WorkflowFailed(failure=failure), at_ms=2_000)
    assert writer.groups() == {"x": (1, 1_000, 2_000)}


def test_a_restart_goes_on_with_the_same_counters(writer: Writer) -> None:
    writer.turn(1, failed("x"), at_ms=1_000)
    writer.turn(2, scheduled(1))
    writer.fold = HistoryFold(writer.store)
    writer.turn(2, failed("x"), at_ms=2_000)
    counts = Listing(writer.store).counts()
    assert {(status.value, kind): runs for (status, kind), runs in counts.items()} == {("Failed", "Order"): 2}
    assert writer.groups() == {"x": (2, 1_000, 2_000)}


def test_a_run_that_comes_and_goes_between_two_flushes_is_written_as_it_ended(writer: Writer) -> None:
    writer.turn(1, scheduled(1), attempt(1, 1), flush=False)
    writer.turn(1, e.WorkflowTerminated())
    assert list(Listing(writer.store).pending()) == []
    assert writer.groups() == {}
    (row,) = [value for _, value in writer.store.scan(b"b", b"c")]
    assert row == b""


def test_of_a_fan_out_only_what_fails_has_a_row(writer: Writer) -> None:
    writer.turn(1, *(scheduled(number) for number in range(1, 301)))
    assert list(Listing(writer.store).pending()) == []
    writer.turn(1, attempt(250, 1))
    assert [one.activity_id for _, one in Listing(writer.store).pending()] == [250]
    assert writer.groups() == {}, "beyond the first hundred it is the activity that is listed, not the run"
    writer.turn(1, attempt(7, 1))
    assert writer.groups() == {"x": (1, 1_000, 1_000)}
