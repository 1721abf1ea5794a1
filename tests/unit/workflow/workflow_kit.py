"""Runs a workflow class by hand: facts in, actions out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from orchestrator.codec import payloads
from orchestrator.protocol.actions import Action
from orchestrator.protocol.events import (
    ActivityCanceled,
    ActivityCompleted,
    ActivityFailed,
    ActivityTimedOut,
    Fact,
    TimerFired,
    WorkflowCancelRequested,
    WorkflowSignaled,
    WorkflowStarted,
)
from orchestrator.protocol.values import Failure, FailureKind, RetryState, TimeoutType
from orchestrator.workflow.definition import definition_of
from orchestrator.workflow.instance import Instance

START_MS = 1_700_000_000_000


def pay(*values: Any) -> Any:
    return payloads.DEFAULT.to_payloads(values)


def completed(activity_id: int, result: Any = None) -> ActivityCompleted:
    return ActivityCompleted(activity_id=activity_id, result=None if result is None else pay(result)[0])


def failed(activity_id: int, message: str = "boom", attempt: int = 1) -> ActivityFailed:
    return ActivityFailed(
        activity_id=activity_id,
        failure=Failure(kind=FailureKind.APPLICATION, message=message, type="Boom"),
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
        attempt=attempt,
    )


def timed_out(activity_id: int) -> ActivityTimedOut:
    return ActivityTimedOut(
        activity_id=activity_id,
        failure=Failure(kind=FailureKind.TIMEOUT, message="late", timeout_type=TimeoutType.START_TO_CLOSE),
        retry_state=RetryState.TIMEOUT,
        attempt=3,
    )


def canceled(activity_id: int) -> ActivityCanceled:
    return ActivityCanceled(activity_id=activity_id)


def fired(timer_id: int) -> TimerFired:
    return TimerFired(timer_id=timer_id)


def signal(name: str, *args: Any) -> WorkflowSignaled:
    return WorkflowSignaled(signal_name=name, input=pay(*args))


def cancel(reason: str = "enough") -> WorkflowCancelRequested:
    return WorkflowCancelRequested(reason=reason)


@dataclasses.dataclass
class Run:
    """One run: remembers what it was told, so that it can be replayed."""

    cls: type
    args: tuple[Any, ...] = ()
    run_id: str = "run-1"
    turns: list[tuple[tuple[Fact, ...], int, tuple[Action, ...]]] = dataclasses.field(default_factory=list)
    now_ms: int = START_MS

    def __post_init__(self) -> None:
        self.instance = self.new_instance()

    def new_instance(self) -> Instance:
        self.started = WorkflowStarted(workflow_type=self.cls.__name__, input=pay(*self.args))
        return Instance(
            definition_of(self.cls),
            workflow_id="wf",
            run_id=self.run_id,
            started=self.started,
            start_time_ms=START_MS,
        )

    def start(self, *facts: Fact) -> list[str]:
        return self.tell(self.started, *facts)

    def tell(self, *facts: Fact, after_ms: int = 1_000) -> list[str]:
        """What the facts made the code ask for, in words."""
        self.now_ms += after_ms
        actions = self.instance.activate(facts, self.now_ms)
        self.turns.append((facts, self.now_ms, actions))
        return [words(action) for action in actions]

    @property
    def last(self) -> Action:
        return self.turns[-1][2][-1]

    @property
    def result(self) -> Any:
        return payloads.DEFAULT.from_payload(self.last.result)  # type: ignore[union-attr,arg-type]

    def query(self, name: str, *args: Any) -> Any:
        return payloads.DEFAULT.from_payload(self.instance.query(name, pay(*args)))

    def replay(self) -> None:
        """A fresh instance that is told the same asks for the same, turn by turn."""
        fresh = self.new_instance()
        for facts, time_ms, actions in self.turns:
            assert fresh.activate(facts, time_ms, replaying=True) == actions
        fresh.close()

    def close(self) -> None:
        self.instance.close()


_WORDS: dict[str, Callable[[Any], str]] = {
    "ScheduleActivity": lambda a: f"schedule {a.activity_id} {a.activity_type}",
    "RequestCancelActivity": lambda a: f"cancel activity {a.activity_id}",
    "StartTimer": lambda a: f"start timer {a.timer_id} {a.delay_ms}",
    "CancelTimer": lambda a: f"cancel timer {a.timer_id}",
    "PublishEvent": lambda a: f"publish to {a.topic}",
    "CompleteWorkflow": lambda a: "complete",
    "FailWorkflow": lambda a: f"fail {a.failure.message}",
    "AcceptCancel": lambda a: "canceled",
}


def words(action: Action) -> str:
    return _WORDS[type(action).__name__](action)
