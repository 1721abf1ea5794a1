"""Calls of authors: what is refused, and what the options become."""

from __future__ import annotations

import types
from datetime import timedelta
from typing import Any

import pytest
from workflow_kit import Run, completed

from orchestrator import workflow
from orchestrator.errors import NotInWorkflow, UsageError
from orchestrator.protocol import values
from orchestrator.protocol.actions import ScheduleActivity, StartTimer
from orchestrator.workflow import ActivityCancellationType, RetryPolicy
from orchestrator.workflow.instance import WorkflowCodeError


async def charge(order_id: str, cents: int) -> float: ...  # type: ignore[empty-body]


charge.__orchestrator_activity__ = types.SimpleNamespace(name="payments.charge")  # type: ignore[attr-defined]


@workflow.defn
class Starts:
    options: dict[str, Any]
    activity: Any
    args: tuple[Any, ...] = ()

    @workflow.run
    async def run(self) -> Any:
        return await workflow.execute_activity(self.activity, *self.args, **self.options)


def start(activity: Any = "a", *args: Any, **options: Any) -> Run:
    Starts.activity, Starts.args, Starts.options = staticmethod(activity), args, options
    if isinstance(activity, str):
        Starts.activity = activity
    run = Run(Starts)
    run.start()
    return run


def test_options_become_the_action() -> None:
    run = start(
        charge,
        "o-1",
        1299,
        task_queue="payments",
        schedule_to_close_timeout=timedelta(minutes=1),
        schedule_to_start_timeout=20,
        start_to_close_timeout=2.5,
        retry_policy=RetryPolicy(maximum_attempts=3, initial_interval=0.5),
        cancellation_type=ActivityCancellationType.ABANDON,
        summary="charge the card",
        priority=2,
    )
    assert run.last == ScheduleActivity(
        activity_id=1,
        activity_type="payments.charge",
        task_queue="payments",
        input=(values.Payload(data=b'"o-1"'), values.Payload(data=b"1299")),
        schedule_to_close_ms=60_000,
        schedule_to_start_ms=20_000,
        start_to_close_ms=2_500,
        retry_policy=values.RetryPolicy(maximum_attempts=3, initial_interval_ms=500),
        cancellation_type=ActivityCancellationType.ABANDON,
        summary="charge the card",
        priority=2,
    )
    run.tell(completed(1, 3))
    assert run.result == 3.0


def test_the_default_queue() -> None:
    action = start(start_to_close_timeout=1).last
    assert isinstance(action, ScheduleActivity)
    assert action.task_queue == "default"


@pytest.mark.parametrize(
    ("activity", "options", "message"),
    [
        ("a", {}, "activity 'a' has no time limit; give start_to_close_timeout"),
        ("a", {"schedule_to_start_timeout": 1}, "has no time limit"),
        (
            "a",
            {"start_to_close_timeout": 1, "heartbeat_timeout": 1},
            "activity 'a': heartbeats are not built yet: leave heartbeat_timeout out",
        ),
        ("a", {"start_to_close_timeout": 0}, "it must be at least a millisecond"),
        ("a", {"start_to_close_timeout": -1}, "it must be between 0 and"),
        ("a", {"start_to_close_timeout": float("inf")}, "it must be between 0 and"),
        ("a", {"start_to_close_timeout": "5s"}, "give seconds or a timedelta"),
        ("a", {"start_to_close_timeout": True}, "give seconds or a timedelta"),
        ("a", {"start_to_close_timeout": 1, "taskqueue": "x"}, r"unknown option\(s\) taskqueue; there are"),
        (print, {"start_to_close_timeout": 1}, "print is no activity; decorate it with @activity.defn"),
    ],
)
def test_wrong_calls_say_what_is_wrong(activity: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkflowCodeError, match=f"UsageError: .*{message}"):
        start(activity, **options)


def test_arguments_that_are_too_large_say_so() -> None:
    with pytest.raises(WorkflowCodeError, match=r"PayloadError.*bytes"):
        start("a", "x" * values.MAX_PAYLOAD_BYTES, start_to_close_timeout=1)


@pytest.mark.parametrize(
    "call", [workflow.now, workflow.random, workflow.uuid4, workflow.info, workflow.time]
)
def test_outside_of_a_workflow(call: Any) -> None:
    with pytest.raises(NotInWorkflow, match="was called outside of a workflow"):
        call()


async def test_outside_of_a_workflow_async() -> None:
    for coroutine in (
        workflow.sleep(1),
        workflow.wait_condition(lambda: True),
        workflow.execute_activity("a", start_to_close_timeout=1),
    ):
        with pytest.raises(NotInWorkflow):
            await coroutine


@workflow.defn
class Sleeper:
    @workflow.run
    async def run(self) -> None:
        await workflow.sleep(timedelta(days=3), summary="wait for the review")


def test_sleep_has_a_summary() -> None:
    run = Run(Sleeper)
    run.start()
    assert run.last == StartTimer(timer_id=1, delay_ms=3 * 86_400_000, summary="wait for the review")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"initial_interval": 0}, "initial_interval is 0"),
        ({"initial_interval": None}, "initial_interval is None"),
        ({"backoff_coefficient": 0.5}, "must be at least 1"),
        ({"backoff_coefficient": float("nan")}, "must be at least 1"),
        ({"maximum_interval": 0.5}, "must not be shorter than initial_interval"),
        ({"maximum_attempts": -1}, "give 0 for no limit"),
        ({"maximum_attempts": 1.5}, "give a whole number"),
        ({"non_retryable_error_types": "ValueError"}, "give a list of names"),
    ],
)
def test_retry_policies_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RetryPolicy(**fields)


def test_retry_policy_as_the_protocol_has_it() -> None:
    assert RetryPolicy().to_protocol() == values.RetryPolicy()
    policy = RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        backoff_coefficient=1,
        maximum_interval=3,
        maximum_attempts=4,
        non_retryable_error_types=["Refused", KeyError],
    )
    assert policy.to_protocol() == values.RetryPolicy(
        initial_interval_ms=200,
        backoff_coefficient=1.0,
        maximum_interval_ms=3_000,
        maximum_attempts=4,
        non_retryable_error_types=("Refused", "KeyError"),
    )
