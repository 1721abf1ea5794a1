"""Histories for drawings, told turn by turn."""

from __future__ import annotations

from orchestrator.api.pages.timeline import Timeline
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.values import Failure, FailureKind

ROOT = Failure(kind=FailureKind.APPLICATION, message="gateway 504", type="Gateway")
FAILED = Failure(kind=FailureKind.ACTIVITY, message="activity 'charge' failed", cause=ROOT)


class Told:
    """A run that started at 0, and its timeline."""

    def __init__(self) -> None:
        self.timeline = Timeline()
        self.turns: list[Turn] = []
        self._next_event = 1
        self.turn(0, e.WorkflowStarted(workflow_type="Order"))

    def turn(self, time_ms: int, *events: e.Event) -> Turn:
        turn = Turn(
            epoch=1,
            seq=len(self.turns) + 1,
            marks=Marks(),
            sent_through=-1,
            time_ms=time_ms,
            workflow_id="order-1",
            run_id="r" * 32,
            turn=len(self.turns) + 1,
            first_event_id=self._next_event,
            activation=Activation.DONE,
            events=events,
        )
        self._next_event += len(events)
        self.turns.append(turn)
        self.timeline.add(turn)
        return turn


def scheduled(activity_id: int, name: str = "charge", worker: str = "") -> e.ActivityScheduled:
    return e.ActivityScheduled(
        activity_id=activity_id, activity_type=name, task_queue="default", worker=worker
    )


def dispatched(*activity_ids: int, attempt: int) -> e.ActivitiesDispatched:
    return e.ActivitiesDispatched(
        dispatches=tuple(
            e.Dispatch(
                activity_id=one, scheduled_event_id=1, attempt=attempt, dispatch=attempt, worker="w", inbox=0
            )
            for one in activity_ids
        )
    )
