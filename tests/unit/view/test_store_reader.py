"""Lists, descriptions and histories, from stores that were filled turn by turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Unavailable, UsageError, WorkflowNotFound
from orchestrator.protocol import events as e
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.values import Payload, RetryPolicy, WorkflowStatus
from orchestrator.store import keys
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.rows import Row
from orchestrator.view import lists
from orchestrator.view.store_reader import StoreReader
from tests.unit.view.shelf import FAILED, NOW_MS, PARTITIONS, ROOT, Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.close()


def ids(shelf: Shelf, query: str = "") -> list[str]:
    return [row.workflow_id for row in shelf.reader.list_runs(query).rows]


def test_runs_are_listed_newest_start_first_over_all_partitions(shelf: Shelf) -> None:
    for number in range(6):
        shelf.run(f"w-{number}")
    assert {partition_of(f"w-{n}", PARTITIONS) for n in range(6)} == {0, 1, 2}, "all are in it"
    assert ids(shelf) == [f"w-{n}" for n in (5, 4, 3, 2, 1, 0)]


def test_filters_are_all_applied(shelf: Shelf) -> None:
    shelf.run("a-1")
    shelf.run("a-2", (e.WorkflowCompleted(),))
    shelf.run("b-1", (e.WorkflowCompleted(),), kind="Other")
    assert ids(shelf, "WorkflowId STARTS_WITH 'a-'") == ["a-2", "a-1"]
    assert ids(shelf, "ExecutionStatus = 'Completed'") == ["b-1", "a-2"]
    assert ids(shelf, "ExecutionStatus = 'Completed' AND WorkflowType = 'Order'") == ["a-2"]


def test_pages_follow_each_other_without_gap_or_repetition(shelf: Shelf) -> None:
    for number in range(7):
        shelf.run(f"w-{number}", start_ms=5 if number < 3 else 0)
    whole, page, found = ids(shelf), "", []
    while True:
        answer = shelf.reader.list_runs(limit=2, page=page)
        found += [row.workflow_id for row in answer.rows]
        page = answer.next_page
        if not page:
            break
    assert found == whole


def test_a_filter_that_few_match_examines_a_bounded_number(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "MAX_ROWS_EXAMINED", 3)
    for number in range(5):
        shelf.run(f"w-{number}")
    first = shelf.reader.list_runs("HistoryLength = 1 AND RunId STARTS_WITH '0' AND NOT WorkflowId > 'w-0'")
    assert first.rows == ()
    rest = shelf.reader.list_runs("NOT WorkflowId > 'w-0'", page=first.next_page)
    assert [row.workflow_id for row in rest.rows] == ["w-0"]


def test_a_page_token_that_no_list_gave_is_refused(shelf: Shelf) -> None:
    with pytest.raises(UsageError, match="page token"):
        shelf.reader.list_runs(page="a")


def test_a_row_names_the_root_of_a_failure(shelf: Shelf) -> None:
    shelf.run("bad", (e.WorkflowFailed(failure=FAILED, tags=("compensation-deferred",)),))
    (row,) = shelf.reader.list_runs().rows
    assert (row.status, row.last_failure, row.tags) == (
        WorkflowStatus.FAILED,
        "sanctions hit",
        ("compensation-deferred",),
    )


def test_a_description_tells_what_is_pending(shelf: Shelf) -> None:
    scheduled = e.ActivityScheduled(
        activity_id=1,
        activity_type="charge",
        task_queue="default",
        start_to_close_ms=1_000,
        retry_policy=RetryPolicy(maximum_attempts=3),
        worker="w1",
    )
    failed = e.ActivityAttemptFailed(activity_id=1, attempt=1, failure=ROOT, retry_time_ms=NOW_MS + 9_000)
    timer = e.TimerStarted(timer_id=1, fire_time_ms=7_000)
    shelf.run("open", (scheduled, timer), (failed,))
    found = shelf.reader.describe("open")
    (activity,) = found.pending_activities
    assert (activity.state, activity.attempt, activity.maximum_attempts) == ("backoff", 2, 3)
    assert (activity.next_retry_time_ms, activity.last_failure) == (NOW_MS + 9_000, ROOT)
    assert [pending.fire_time_ms for pending in found.pending_timers] == [7_000]
    assert (found.row.activity_type, found.row.last_failure) == ("charge", "sanctions hit")
    assert found.input == (Payload(data=b"1"),)


def test_a_pending_activity_is_in_one_of_three_states_and_says_since_when(shelf: Shelf) -> None:
    activities = [
        e.ActivityScheduled(activity_id=n, activity_type="a", task_queue="q", worker="w") for n in (1, 2, 3)
    ]
    waits = e.ActivityScheduled(activity_id=4, activity_type="a", task_queue="q")
    due, later = (
        e.ActivityAttemptFailed(activity_id=n, attempt=1, failure=ROOT, retry_time_ms=NOW_MS + ms)
        for n, ms in ((2, 0), (3, 1))
    )
    shelf.run("open", (*activities, waits), (due, later))
    found = [
        (one.state, one.started_time_ms, one.waiting_time_ms, one.next_retry_time_ms, one.worker)
        for one in shelf.reader.describe("open").pending_activities
    ]
    assert found == [
        ("running", 1_002, None, None, "w"),
        ("waiting", None, NOW_MS, None, ""),
        ("backoff", None, None, NOW_MS + 1, ""),
        ("waiting", None, 1_002, None, ""),
    ]


def test_a_closed_run_has_a_result_or_a_failure(shelf: Shelf) -> None:
    shelf.run("good", (e.WorkflowCompleted(result=Payload(data=b"2")),))
    shelf.run("bad", (e.WorkflowFailed(failure=FAILED),))
    assert shelf.reader.describe("good").result == Payload(data=b"2")
    assert shelf.reader.describe("bad").failure == FAILED


def test_a_history_is_read_from_a_turn_on(shelf: Shelf) -> None:
    signals = [(e.WorkflowSignaled(signal_name=str(n)),) for n in range(4)]
    run_id = shelf.run("w", *signals)
    assert [turn.turn for turn in shelf.reader.history("w").turns] == [1, 2, 3, 4, 5]
    part = shelf.reader.history("w", run_id, after_turn=2, limit=2)
    assert [turn.turn for turn in part.turns] == [3, 4]
    assert (part.workflow_id, part.run_id, part.workflow_type) == ("w", run_id, "Order")


@pytest.mark.parametrize(
    ("bounds", "turns"),
    [
        ({"limit": 2}, [1, 2]),
        ({"limit": 2, "newest": True}, [4, 5]),
        ({"limit": 2, "newest": True, "before_turn": 4}, [2, 3]),
        ({"limit": 9, "newest": True, "before_turn": 4, "after_turn": 1}, [2, 3]),
        ({"before_turn": 3}, [1, 2]),
        ({"before_turn": 99, "newest": True}, [1, 2, 3, 4, 5]),
        ({"before_turn": 1}, []),
        ({"after_turn": 5, "newest": True}, []),
        ({"after_turn": 9}, []),
    ],
)
def test_a_history_is_read_from_either_end(shelf: Shelf, bounds: dict[str, Any], turns: list[int]) -> None:
    shelf.run("w", *((e.WorkflowSignaled(signal_name=str(n)),) for n in range(4)))
    found = shelf.reader.history("w", **bounds)
    assert [turn.turn for turn in found.turns] == turns
    assert len(found.offsets) == len(turns)


def test_a_history_says_where_its_turns_stand(shelf: Shelf) -> None:
    shelf.run("w", (e.WorkflowSignaled(signal_name="a"),))
    shelf.run("w")
    number = partition_of("w", PARTITIONS)
    earlier, later = shelf.reader.history("w", f"{1:032x}"), shelf.reader.history("w")
    assert (earlier.partition, earlier.offsets) == (number, (0, 1))
    assert (later.partition, later.offsets) == (number, (2,))


def test_a_turn_of_an_older_store_is_at_an_unknown_place(shelf: Shelf) -> None:
    run_id = shelf.run("w", (e.WorkflowSignaled(signal_name="a"),))
    store = shelf.stores[partition_of("w", PARTITIONS)]
    assert store is not None
    store.apply([Row(keys.offset_of_turn(run_id, 1), None)], store.checkpoint)
    assert shelf.reader.history("w").offsets == (-1, 1)


def test_positions_move_with_what_is_shown(shelf: Shelf) -> None:
    assert shelf.reader.positions() == (0,) * PARTITIONS
    shelf.run("w")
    number = partition_of("w", PARTITIONS)
    assert [number for number, at in enumerate(shelf.reader.positions()) if at] == [number]
    assert shelf.stores[number] is not None
    shelf.stores[number], kept = None, shelf.stores[number]
    assert shelf.reader.positions()[number] == -1
    shelf.stores[number] = kept


def test_an_earlier_run_of_an_id_is_found_by_its_run_id(shelf: Shelf) -> None:
    earlier = shelf.run("w", (e.WorkflowCompleted(),))
    later = shelf.run("w")
    assert shelf.reader.describe("w").row.run_id == later
    assert shelf.reader.describe("w", earlier).row.status is WorkflowStatus.COMPLETED


def test_unknown_ids_and_runs_of_other_ids_are_not_found(shelf: Shelf) -> None:
    run_id = shelf.run("w")
    with pytest.raises(WorkflowNotFound, match="'nobody'"):
        shelf.reader.describe("nobody")
    same = next(
        f"o-{n}" for n in range(99) if partition_of(f"o-{n}", PARTITIONS) == partition_of("w", PARTITIONS)
    )
    with pytest.raises(WorkflowNotFound, match=run_id):
        shelf.reader.describe(same, run_id)


def test_a_partition_that_is_being_restored_says_so(shelf: Shelf) -> None:
    shelf.stores[partition_of("w", PARTITIONS)] = None
    with pytest.raises(Unavailable, match="being restored"):
        shelf.reader.describe("w")
    with pytest.raises(Unavailable, match="being restored"):
        shelf.reader.list_runs()  # without its runs, a list would be wrong and not look it


def test_a_log_whose_partitions_are_not_known_yet_says_so() -> None:
    reader = StoreReader(list)
    for ask in (reader.list_runs, lambda: reader.describe("w")):
        with pytest.raises(Unavailable, match="has not answered yet"):
            ask()


def test_a_store_that_is_a_little_behind_is_brought_up_to_date_before_a_run_is_unknown(shelf: Shelf) -> None:
    behind: list[int] = []

    def catch_up(partition: int, end: int) -> None:
        behind.append(partition)
        shelf.run("late")

    reader = StoreReader(lambda: shelf.stores, catch_up=catch_up)
    assert reader.describe("late").row.workflow_id == "late"
    assert reader.describe("late").row.workflow_id == "late"
    assert behind == [partition_of("late", PARTITIONS)], "once"
    with pytest.raises(WorkflowNotFound):
        reader.describe("nobody")


def test_a_run_that_is_cleaned_while_it_is_read_is_not_found(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.run("w")
    monkeypatch.setattr(PartitionStore, "turn", lambda self, run_id, number: None)
    with pytest.raises(WorkflowNotFound, match="of workflow id 'w'"):
        shelf.reader.describe("w")
