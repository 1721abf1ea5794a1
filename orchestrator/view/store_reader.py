"""The read side over partition stores: what is committed, nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import time_ns

from orchestrator.engine import execution
from orchestrator.engine.state import ActivityPhase, ActivityState, RunState, waits_since_ms
from orchestrator.errors import Unavailable, UsageError, WorkflowNotFound
from orchestrator.protocol.bookmarks import parse_bookmark
from orchestrator.protocol.events import WorkflowCompleted, WorkflowStarted
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.views import (
    STUCK_ATTEMPTS,
    STUCK_WAITING_MS,
    FailureGroups,
    History,
    MinuteCounts,
    PendingActivity,
    PendingTimer,
    RunCounts,
    RunDescription,
    RunPage,
    StuckPage,
)
from orchestrator.store.listing import Listing
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.summaries import summarize
from orchestrator.view import lists
from orchestrator.view.stuck import Patience, stuck


class StoreReader:
    """Implements ``view.reader.Reader`` over the stores of all partitions in this process."""

    def __init__(
        self,
        stores: Callable[[], Sequence[PartitionStore | None]],
        *,
        catch_up: Callable[[int, int], object] = lambda partition, end: None,
        served: Callable[[], frozenset[str] | None] = lambda: None,
        now_ms: Callable[[], int] = lambda: time_ns() // 1_000_000,
    ) -> None:
        """``stores`` gives the store of each partition, by number; None where there is none yet.

        Stores that follow a log are a little behind it: ``catch_up`` is called with an offset of history that
        somebody wants to see, or with -1 before a partition is said not to have a run, and returns when the
        store has come there, or it takes too long. ``served`` says which task queues
        have workers, None if nobody knows. ``now_ms`` is the clock.
        """
        self._stores = stores
        self._catch_up = catch_up
        self._served = served
        self._now_ms = now_ms

    def wait_for(self, bookmark: str) -> None:
        """Return when everything up to a bookmark is shown; see ``Reader``."""
        for number, offset in parse_bookmark(bookmark).items():
            there = self._partitions()
            if number >= there:
                raise UsageError(
                    f"the bookmark {bookmark!r} names partition {number}, and there are {there}; "
                    "use it with the log that it comes from"
                )
            if self._store(number).checkpoint.offset <= offset:
                self._catch_up(number, offset + 1)
            read = self._store(number).checkpoint.offset
            if read <= offset:
                raise Unavailable(
                    f"what was asked for is not shown yet: partition {number} was read up to {read}, and the "
                    f"bookmark says {offset}; ask again in a moment, or without the bookmark"
                )

    def positions(self) -> tuple[int, ...]:
        """How far each partition is shown; see ``Reader``."""
        return tuple(store.checkpoint.offset if store is not None else -1 for store in self._stores())

    def list_runs(self, query: str = "", *, limit: int = 100, page: str = "") -> RunPage:
        """Runs that match a query, newest start first. ``page`` continues an earlier list."""
        return lists.list_runs(self._listings(), query, limit, page)

    def count_runs(self, query: str = "") -> RunCounts:
        """How many runs match a query, by status and type."""
        return lists.count_runs(self._listings(), query)

    def minutes(self) -> MinuteCounts:
        """How many runs started and closed in each minute of the last 24 hours."""
        return lists.minute_counts(self._listings(), self._now_ms())

    def failures(self, *, limit: int = 100) -> FailureGroups:
        """Failures that are alike, those of most runs first."""
        return lists.failure_groups(self._listings(), limit)

    def stuck(
        self,
        *,
        attempts: int = STUCK_ATTEMPTS,
        waiting_ms: int = STUCK_WAITING_MS,
        limit: int = 100,
        page: str = "",
    ) -> StuckPage:
        """What does not get on."""
        patience = Patience(attempts, waiting_ms, self._served(), self._now_ms())
        return stuck(self._listings(), patience, limit, page)

    def _listings(self) -> list[Listing]:
        return [Listing(self._store(number)) for number in range(self._partitions())]

    def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """One run as it stands."""
        store, state = self._find(workflow_id, run_id)
        first = store.turn(state.run_id, 1)
        if first is None:  # cleaned this very moment
            raise WorkflowNotFound(f"there is no run {state.run_id} of workflow id {workflow_id!r}")
        started = first.events[0]
        assert isinstance(started, WorkflowStarted)
        close, now_ms = state.close, self._now_ms()
        return RunDescription(
            row=lists.row_of(summarize(state)[0]),
            input=started.input,
            result=close.result if isinstance(close, WorkflowCompleted) else None,
            failure=execution.close_failure(close),
            blocked=state.blocked,
            cancel_requested=state.cancel_requested,
            run_timeout_time_ms=state.run_deadline_ms or None,
            pending_activities=tuple(_pending(found, now_ms) for found in state.activities.values()),
            pending_timers=tuple(
                PendingTimer(timer_id=timer_id, fire_time_ms=at_ms)
                for timer_id, at_ms in state.timers.items()
            ),
        )

    def history(
        self,
        workflow_id: str,
        run_id: str = "",
        *,
        after_turn: int = 0,
        before_turn: int = 0,
        newest: bool = False,
        limit: int = 10_000,
    ) -> History:
        """The turns of one run after ``after_turn`` and before ``before_turn`` (0: to the end), in order.

        At most ``limit`` of them: the first ones, or the ``newest``.
        """
        store, state = self._find(workflow_id, run_id)
        after_turn = min(after_turn, state.turn)
        end = min(before_turn or state.turn + 1, state.turn + 1)
        first = max(after_turn, end - 1 - limit) if newest else after_turn
        end = min(end, first + limit + 1)
        turns = tuple(store.turns(state.run_id, after=first, before=end))
        offsets = store.offsets(state.run_id, after=first, before=end)
        return History(
            workflow_id=state.workflow_id,
            run_id=state.run_id,
            workflow_type=state.workflow_type,
            turns=turns,
            partition=partition_of(workflow_id, self._partitions()),
            offsets=tuple(offsets.get(turn.turn, -1) for turn in turns),
        )

    def _find(self, workflow_id: str, run_id: str) -> tuple[PartitionStore, RunState]:
        number = partition_of(workflow_id, self._partitions())
        found = self._look_up(number, workflow_id, run_id)
        if found is None:
            self._catch_up(number, -1)
            found = self._look_up(number, workflow_id, run_id)
        if found is None:
            what = (
                f"run {run_id} of workflow id {workflow_id!r}" if run_id else f"workflow id {workflow_id!r}"
            )
            raise WorkflowNotFound(f"there is no {what}")
        return found

    def _look_up(self, number: int, workflow_id: str, run_id: str) -> tuple[PartitionStore, RunState] | None:
        store = self._store(number)
        found = run_id or store.latest_run_id(workflow_id)
        state = store.state(found) if found else None
        return (store, state) if state is not None and state.workflow_id == workflow_id else None

    def _partitions(self) -> int:
        count = len(self._stores())
        if not count:
            raise Unavailable("the log has not answered yet; try again in a moment")
        return count

    def _store(self, number: int) -> PartitionStore:
        store = self._stores()[number]
        if store is None:
            raise Unavailable(f"partition {number} is being restored; try again in a moment")
        return store


def _pending(found: ActivityState, now_ms: int) -> PendingActivity:
    running = found.phase is ActivityPhase.DISPATCHED
    waits_since = waits_since_ms(found.phase, found.scheduled_time_ms, found.retry_time_ms, now_ms)
    backs_off = not running and waits_since is None
    return PendingActivity(
        activity_id=found.activity_id,
        activity_type=found.scheduled.activity_type,
        task_queue=found.scheduled.task_queue,
        state="running" if running else "backoff" if backs_off else "waiting",
        attempt=found.attempt,
        maximum_attempts=found.scheduled.retry_policy.maximum_attempts,
        scheduled_time_ms=found.scheduled_time_ms,
        started_time_ms=found.dispatched_time_ms if running else None,
        waiting_time_ms=waits_since,
        next_retry_time_ms=found.retry_time_ms if backs_off else None,
        worker=found.worker if running else "",
        last_failure=found.last_failure,
    )
