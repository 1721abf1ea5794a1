"""The read side over partition stores: what is committed, nothing else."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from orchestrator.engine import execution
from orchestrator.engine.state import ActivityPhase, ActivityState, RunState
from orchestrator.errors import Unavailable, WorkflowNotFound
from orchestrator.protocol.events import WorkflowCompleted, WorkflowStarted
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.values import Failure, WorkflowStatus
from orchestrator.protocol.views import (
    History,
    PendingActivity,
    PendingTimer,
    RunDescription,
    RunPage,
    RunRow,
)
from orchestrator.store.partition_store import PartitionStore
from orchestrator.view.pages import read_token, token

MAX_ROWS_EXAMINED = 20_000
"""A filter that few runs match answers with what it found among so many, and a token to go on."""


class StoreReader:
    """Implements ``view.reader.Reader`` over the stores of all partitions in this process."""

    def __init__(
        self,
        stores: Callable[[], Sequence[PartitionStore | None]],
        *,
        catch_up: Callable[[int], object] = lambda partition: None,
    ) -> None:
        """``stores`` gives the store of each partition, by number; None where there is none yet.

        Stores that follow a log are a little behind it: ``catch_up`` is called before a partition is said
        not to have a run, and returns when it has all that it could have.
        """
        self._stores = stores
        self._catch_up = catch_up

    def list_runs(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str = "",
        id_prefix: str = "",
        limit: int = 100,
        page: str = "",
    ) -> RunPage:
        """Runs that match all given filters, newest start first. ``page`` continues an earlier list."""
        rows: list[RunRow] = []
        after = read_token(page)
        for examined, (key, number, run_id) in enumerate(self._by_start(after), start=1):
            state = self._store(number).state(run_id)
            if state is not None and _matches(state, status, workflow_type, id_prefix):
                rows.append(row_of(state))
            if len(rows) == limit or examined == MAX_ROWS_EXAMINED:
                return RunPage(rows=tuple(rows), next_page=token(key))
        return RunPage(rows=tuple(rows))

    def _by_start(self, after: bytes) -> Iterator[tuple[bytes, int, str]]:
        """(key, partition, run id) over all partitions, newest start first; keys are unique."""

        def of(number: int, store: PartitionStore) -> Iterator[tuple[bytes, int, str]]:
            for key, run_id in store.run_ids_by_start(after):
                yield key, number, run_id

        return heapq.merge(*(of(number, self._store(number)) for number in range(self._partitions())))

    def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """One run as it stands."""
        store, state = self._find(workflow_id, run_id)
        first = store.turn(state.run_id, 1)
        if first is None:  # cleaned this very moment
            raise WorkflowNotFound(f"there is no run {state.run_id} of workflow id {workflow_id!r}")
        started = first.events[0]
        assert isinstance(started, WorkflowStarted)
        close = state.close
        return RunDescription(
            row=row_of(state),
            input=started.input,
            result=close.result if isinstance(close, WorkflowCompleted) else None,
            failure=execution.close_failure(close),
            blocked=state.blocked,
            cancel_requested=state.cancel_requested,
            run_timeout_time_ms=state.run_deadline_ms or None,
            pending_activities=tuple(_pending(found) for found in state.activities.values()),
            pending_timers=tuple(
                PendingTimer(timer_id=timer_id, fire_time_ms=at_ms)
                for timer_id, at_ms in state.timers.items()
            ),
        )

    def history(
        self, workflow_id: str, run_id: str = "", *, after_turn: int = 0, limit: int = 10_000
    ) -> History:
        """The turns of one run after ``after_turn``, at most ``limit``."""
        store, state = self._find(workflow_id, run_id)
        turns = []
        for turn in store.turns(state.run_id, after=after_turn):
            turns.append(turn)
            if len(turns) == limit:
                break
        return History(
            workflow_id=state.workflow_id,
            run_id=state.run_id,
            workflow_type=state.workflow_type,
            turns=tuple(turns),
        )

    def _find(self, workflow_id: str, run_id: str) -> tuple[PartitionStore, RunState]:
        number = partition_of(workflow_id, self._partitions())
        found = self._look_up(number, workflow_id, run_id)
        if found is None:
            self._catch_up(number)
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


def row_of(state: RunState) -> RunRow:
    """A run's row in a list."""
    worst = max(state.activities.values(), key=lambda found: found.attempt, default=None)
    failure = execution.close_failure(state.close) or state.blocked or (worst.last_failure if worst else None)
    return RunRow(
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        workflow_type=state.workflow_type,
        status=state.status,
        start_time_ms=state.start_time_ms,
        close_time_ms=state.close_time_ms or None,
        history_events=state.next_event_id - 1,
        activity_type=worst.scheduled.activity_type if worst is not None else "",
        attempt=worst.attempt if worst is not None else 0,
        last_failure=_root(failure).message if failure is not None else "",
        tags=getattr(state.close, "tags", ()),
    )


def _root(failure: Failure) -> Failure:
    """What was at the bottom of it: "sanctions hit" says more than that an activity failed."""
    while failure.cause is not None:
        failure = failure.cause
    return failure


def _pending(found: ActivityState) -> PendingActivity:
    running = found.phase is ActivityPhase.DISPATCHED
    return PendingActivity(
        activity_id=found.activity_id,
        activity_type=found.scheduled.activity_type,
        task_queue=found.scheduled.task_queue,
        state="running" if running else found.phase.value,
        attempt=found.attempt,
        maximum_attempts=found.scheduled.retry_policy.maximum_attempts,
        scheduled_time_ms=found.scheduled_time_ms,
        started_time_ms=found.dispatched_time_ms if running else None,
        next_retry_time_ms=found.retry_time_ms if found.phase is ActivityPhase.BACKOFF else None,
        worker=found.worker if running else "",
        last_failure=found.last_failure,
    )


def _matches(state: RunState, status: WorkflowStatus | None, workflow_type: str, id_prefix: str) -> bool:
    return (
        (status is None or state.status is status)
        and (not workflow_type or state.workflow_type == workflow_type)
        and state.workflow_id.startswith(id_prefix)
    )
