"""The read side over partition stores: what is committed, nothing else."""

from __future__ import annotations

import base64
import heapq
from collections.abc import Callable, Iterator, Sequence

from orchestrator.engine import execution
from orchestrator.engine.state import ActivityPhase, ActivityState, RunState
from orchestrator.errors import Unavailable, UsageError, WorkflowNotFound
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

MAX_ROWS_EXAMINED = 20_000
"""A filter that few runs match answers with what it found among so many, and a token to go on."""


class StoreReader:
    """Implements ``view.reader.Reader`` over the stores of all partitions in this process."""

    def __init__(self, stores: Callable[[], Sequence[PartitionStore | None]]) -> None:
        """``stores`` gives the store of each partition, by number; None where there is none yet."""
        self._stores = stores

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
        after = _read_token(page)
        for examined, (key, number, run_id) in enumerate(self._by_start(after), start=1):
            state = self._store(number).state(run_id)
            if state is not None and _matches(state, status, workflow_type, id_prefix):
                rows.append(row_of(state))
            if len(rows) == limit or examined == MAX_ROWS_EXAMINED:
                return RunPage(rows=tuple(rows), next_page=_token(key))
        return RunPage(rows=tuple(rows))

    def _by_start(self, after: bytes) -> Iterator[tuple[bytes, int, str]]:
        """(key, partition, run id) over all partitions, newest start first; keys are unique."""

        def of(number: int, store: PartitionStore) -> Iterator[tuple[bytes, int, str]]:
            for key, run_id in store.run_ids_by_start(after):
                yield key, number, run_id

        parts = [of(number, store) for number, store in enumerate(self._stores()) if store is not None]
        return heapq.merge(*parts)

    def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """One run as it stands."""
        store, state = self._find(workflow_id, run_id)
        started = self._started(store, state)
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

    def _started(self, store: PartitionStore, state: RunState) -> WorkflowStarted:
        turn = store.turn(state.run_id, 1)
        first = turn.events[0] if turn is not None else None
        assert isinstance(first, WorkflowStarted)
        return first

    def _find(self, workflow_id: str, run_id: str) -> tuple[PartitionStore, RunState]:
        store = self._store(partition_of(workflow_id, len(self._stores())))
        found = run_id or store.latest_run_id(workflow_id)
        state = store.state(found) if found else None
        if state is None or state.workflow_id != workflow_id:
            what = (
                f"run {run_id} of workflow id {workflow_id!r}" if run_id else f"workflow id {workflow_id!r}"
            )
            raise WorkflowNotFound(f"there is no {what}")
        return store, state

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


def _token(key: bytes) -> str:
    return base64.urlsafe_b64encode(key).decode()


def _read_token(page: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(page.encode())
    except ValueError:
        raise UsageError(f"the page token {page!r} is not one that a list has given") from None
