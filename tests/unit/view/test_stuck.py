"""What does not get on, and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.protocol import events as e
from orchestrator.protocol.values import RetryPolicy
from orchestrator.protocol.views import StuckReason, StuckRun
from orchestrator.view import stuck as stuck_module
from tests.unit.view.shelf import NOW_MS, ROOT, Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.close()


def scheduled(number: int = 1, *, queue: str = "q", worker: str = "") -> e.ActivityScheduled:
    return e.ActivityScheduled(
        activity_id=number,
        activity_type="charge",
        task_queue=queue,
        worker=worker,
        retry_policy=RetryPolicy(maximum_attempts=9),
    )


def sent(attempt: int, number: int = 1) -> e.ActivitiesDispatched:
    dispatch = e.Dispatch(
        activity_id=number, scheduled_event_id=2, attempt=attempt, dispatch=attempt, worker="w", inbox=0
    )
    return e.ActivitiesDispatched(dispatches=(dispatch,))


SOON_MS = NOW_MS + 9_000


def failed(attempt: int, number: int = 1, *, retry_time_ms: int = SOON_MS) -> e.ActivityAttemptFailed:
    return e.ActivityAttemptFailed(
        activity_id=number, attempt=attempt, failure=ROOT, retry_time_ms=retry_time_ms
    )


def returned(attempt: int) -> e.ActivityReturned:
    return e.ActivityReturned(activity_id=1, attempt=attempt, dispatch=attempt, worker="w")


def reasons(shelf: Shelf, attempts: int = 3, waiting_ms: int = 60_000) -> dict[str, tuple[str, ...]]:
    rows = shelf.reader.stuck(attempts=attempts, waiting_ms=waiting_ms).rows
    return {row.workflow_id: tuple(reason.value for reason in row.reasons) for row in rows}


def test_who_is_stuck_and_why(shelf: Shelf) -> None:
    shelf.run("blocked", (e.WorkflowBlocked(reason="bug", failure=ROOT),))
    shelf.run("well", (scheduled(worker="w"),))
    shelf.run("twice", (scheduled(worker="w"), failed(1)))
    shelf.run("thrice", (scheduled(worker="w"), failed(1)), (sent(2), failed(2)))
    shelf.run("running again", (scheduled(worker="w"), failed(1)), (sent(2), failed(2)), (sent(3),))
    shelf.run("waits", (scheduled(),))
    shelf.run("waits a moment", (scheduled(),), start_ms=NOW_MS - 2_000)
    shelf.run("nobody", (scheduled(queue="idle"),), start_ms=NOW_MS - 2_000)
    shelf.run("was blocked", (e.WorkflowBlocked(reason="bug", failure=ROOT),), (e.WorkflowUnblocked(),))
    shelf.run("closed", (scheduled(),), (e.WorkflowTerminated(),))
    shelf.run("done", (scheduled(),), (sent(1), e.ActivityCompleted(activity_id=1)))
    shelf.served = frozenset({"q"})
    assert reasons(shelf) == {
        "blocked": ("blocked",),
        "thrice": ("retrying",),
        "running again": ("retrying",),
        "waits": ("waiting",),
        "nobody": ("no-worker",),
    }
    shelf.served = None
    assert "nobody" not in reasons(shelf), "nobody knows who is served"
    assert reasons(shelf, attempts=2, waiting_ms=0).keys() == {
        "blocked", "twice", "thrice", "running again", "waits", "waits a moment", "nobody",
    }  # fmt: skip


def test_an_attempt_that_is_due_waits_for_a_worker_as_the_first_one_does(shelf: Shelf) -> None:
    """The end of a backoff is no event: if the workers of a queue die, nothing else says so."""
    long_ago = shelf.run("long ago", (scheduled(worker="w"), failed(1, retry_time_ms=9_000)))
    shelf.run("a moment ago", (scheduled(worker="w"), failed(1, retry_time_ms=NOW_MS - 2_000)))
    shelf.run("not yet", (scheduled(worker="w"), failed(1)))
    shelf.run(
        "returned", (scheduled(worker="w"), failed(1, retry_time_ms=NOW_MS - 2_000)), (sent(2), returned(2))
    )
    shelf.served = frozenset({"q"})
    assert reasons(shelf) == {"long ago": ("waiting",)}
    shelf.served = frozenset()
    assert reasons(shelf) == {
        "long ago": ("no-worker", "waiting"),
        "a moment ago": ("no-worker",),
        "returned": ("no-worker",),
    }
    (row,) = shelf.reader.stuck(waiting_ms=60_000, limit=1).rows
    assert (row.run_id, row.since_time_ms, row.next_retry_time_ms) == (long_ago, 9_000, None)


def test_a_row_says_what_there_is_to_know(shelf: Shelf) -> None:
    run_id = shelf.run("thrice", (scheduled(worker="w"), failed(1)), (sent(2), failed(2)))
    (row,) = shelf.reader.stuck(attempts=3).rows
    assert row == StuckRun(
        workflow_id="thrice",
        run_id=run_id,
        workflow_type="Order",
        reasons=(StuckReason.RETRYING,),
        since_time_ms=1_002,
        activity_id=1,
        activity_type="charge",
        task_queue="q",
        attempt=3,
        maximum_attempts=9,
        next_retry_time_ms=SOON_MS,
        last_failure="sanctions hit",
    )


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_follow_each_other_without_gap_or_repetition(
    shelf: Shelf, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stuck_module, "MAX_ROWS_EXAMINED", 4)
    for number in range(7):
        shelf.run(f"blocked-{number}", (e.WorkflowBlocked(reason="bug", failure=ROOT),))
        shelf.run(f"waits-{number}", (scheduled(1), scheduled(2)))
        shelf.run(f"soon-{number}", (scheduled(1),), start_ms=NOW_MS)
    found: list[tuple[str, int]] = []
    page = ""
    while True:
        answer = shelf.reader.stuck(limit=limit, page=page)
        found += [(row.workflow_id, row.activity_id) for row in answer.rows]
        page = answer.next_page
        if not page:
            break
    blocked = [(f"blocked-{number}", 0) for number in reversed(range(7))]
    assert found == blocked + [(f"waits-{number}", one) for number in range(7) for one in (1, 2)]


def test_a_token_of_another_list_is_refused(shelf: Shelf) -> None:
    with pytest.raises(UsageError, match="not one that a list of what is stuck"):
        shelf.reader.stuck(page="YWJj")
