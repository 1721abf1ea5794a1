"""Tells a run's story: given(events).when(command).then(events)."""

from __future__ import annotations

from typing import Any

from orchestrator.engine import decider
from orchestrator.engine.execution import new_run
from orchestrator.engine.state import ActivityPhase, Changes, Deadline, DeadlineKind, RunState
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.values import Failure, FailureKind, RetryPolicy

NOW_MS = 1_700_000_000_000
RUN_ID = f"{NOW_MS:012x}{1:020x}"
ID = "order-1"
BOOM = Failure(kind=FailureKind.APPLICATION, message="boom", type="Boom")

STARTED = e.WorkflowStarted(workflow_type="Order")


def scheduled(activity_id: int = 1, **fields: Any) -> e.ActivityScheduled:
    return e.ActivityScheduled(
        **{"activity_id": activity_id, "activity_type": "pay", "task_queue": "default"} | fields
    )


def on_worker(activity_id: int = 1, **fields: Any) -> e.ActivityScheduled:
    """Scheduled and at once with worker w1."""
    return scheduled(activity_id, **{"worker": "w1", "inbox": 7} | fields)


def sent(
    activity_id: int = 1, *, attempt: int = 1, dispatch: int = 1, worker: str = "w1", event_id: int = 2
) -> e.ActivitiesDispatched:
    delivery = e.Dispatch(
        activity_id=activity_id,
        scheduled_event_id=event_id,
        attempt=attempt,
        dispatch=dispatch,
        worker=worker,
        inbox=7,
    )
    return e.ActivitiesDispatched(dispatches=(delivery,))


def attempt_failed(activity_id: int = 1, *, attempt: int = 1, retry_in_ms: int = 1_000) -> Any:
    return e.ActivityAttemptFailed(
        activity_id=activity_id, attempt=attempt, failure=BOOM, retry_time_ms=NOW_MS + retry_in_ms
    )


def report(kind: type[c.ActivityCommand], activity_id: int = 1, **fields: Any) -> Any:
    """A worker's report on the first delivery of the first attempt."""
    values: dict[str, Any] = {
        "workflow_id": ID,
        "run_id": RUN_ID,
        "activity_id": activity_id,
        "attempt": 1,
        "dispatch": 1,
        "worker": "w1",
    }
    if kind is c.FailActivity:
        values["failure"] = BOOM
    return kind(**values | fields)


def policy(**fields: Any) -> RetryPolicy:
    return RetryPolicy(**fields)


class Story:
    """A run, what happened to it, and what its last evolutions changed."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.state: RunState = new_run(ID, RUN_ID, STARTED, NOW_MS)
        self.changes = Changes()
        self.turns: list[Turn] = []
        self.decided: tuple[e.Event, ...] | c.Rejection = ()

    def given(self, *events: e.Event) -> Story:
        """These happened, in one turn, now."""
        turn = Turn(
            epoch=1,
            seq=len(self.turns) + 1,
            marks=Marks(),
            sent_through=-1,
            time_ms=self.now_ms,
            workflow_id=ID,
            run_id=RUN_ID,
            turn=self.state.turn + 1,
            first_event_id=self.state.next_event_id,
            activation=Activation.NONE,
            events=events,
        )
        decider.evolve(self.state, turn, self.changes)
        self.turns.append(turn)
        return self

    def after(self, ms: int) -> Story:
        """Time passes."""
        self.now_ms += ms
        return self

    def when(self, command: Any) -> Story:
        """A command arrives."""
        self.decided = decider.decide(self.state, command, self.now_ms)
        return self

    def when_due(self, kind: DeadlineKind, owner: int = 1, at_ms: int | None = None) -> Story:
        """A deadline comes; by default the one of that kind that stands."""
        if at_ms is None:
            standing = [d for d in self.standing() if (d.kind, d.id) == (kind, owner)]
            assert len(standing) == 1, f"{kind} of {owner} does not stand among {self.standing()}"
            at_ms = standing[0].at_ms
        self.now_ms = max(self.now_ms, at_ms)
        self.decided = decider.decide_deadline(self.state, Deadline(at_ms, kind, owner), self.now_ms)
        return self

    def then(self, *events: e.Event) -> Story:
        """These events follow, and happen."""
        assert self.decided == events
        return self.given(*events) if events else self

    def happens(self) -> Any:
        """What was decided happens; the last event of it."""
        assert isinstance(self.decided, tuple)
        assert self.decided
        self.given(*self.decided)
        return self.decided[-1]

    def nothing(self) -> Story:
        """Nothing follows."""
        return self.then()

    def rejected(self, reason: str) -> c.Rejection:
        """The command is refused."""
        assert isinstance(self.decided, c.Rejection), self.decided
        assert self.decided.reason == reason
        return self.decided

    def standing(self) -> list[Deadline]:
        """The deadlines that were set and not cleared."""
        left = list(self.changes.deadlines_set)
        for deadline in self.changes.deadlines_cleared:
            left.remove(deadline)  # raises if it never was set
        return sorted(left)

    def kinds(self) -> list[DeadlineKind]:
        return sorted(deadline.kind for deadline in self.standing())

    def slots(self) -> list[tuple[str, int]]:
        """The (worker, activity) pairs that were taken and not freed."""
        left = list(self.changes.taken)
        for pair in self.changes.freed:
            left.remove(pair)
        return sorted(left)

    def phase(self, activity_id: int = 1) -> ActivityPhase | None:
        found = self.state.activities.get(activity_id)
        return found.phase if found is not None else None


def given(*events: e.Event) -> Story:
    """A started run to which these happened in one turn."""
    return Story().given(STARTED, *events)
