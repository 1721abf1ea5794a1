"""Calls of authors: what is refused, and what the options become."""

from __future__ import annotations

import enum
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


def test_a_cancellation_type_may_be_said_by_its_value() -> None:
    action = start(start_to_close_timeout=1, cancellation_type="abandon").last
    assert isinstance(action, ScheduleActivity)
    assert action.cancellation_type is ActivityCancellationType.ABANDON


class Queue(enum.StrEnum):
    SLOW = "slow"


def test_the_record_has_plain_texts_and_numbers() -> None:
    options = {"task_queue": Queue.SLOW, "summary": Queue.SLOW, "priority": enum.IntEnum("P", "HIGH").HIGH}
    action = start(start_to_close_timeout=1, **options).last
    assert isinstance(action, ScheduleActivity)
    assert (action.task_queue, action.summary, action.priority) == ("slow", "slow", 1)
    assert {type(action.task_queue), type(action.summary), type(action.priority)} == {str, int}


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
        ("a", {"start_to_close_timeout": 10**400}, "it must be between 0 and"),
        ("a", {"start_to_close_timeout": float("nan")}, "it must be between 0 and"),
        ("a", {"start_to_close_timeout": 1, "priority": "high"}, "priority is 'high'; give a whole number"),
        ("a", {"start_to_close_timeout": 1, "priority": True}, "priority is True; give a whole number"),
        ("a", {"start_to_close_timeout": 1, "priority": 2**31}, "priority is 2147483648; it must be between"),
        ("a", {"start_to_close_timeout": 1, "summary": None}, "summary is None; give text"),
        ("a", {"start_to_close_timeout": 1, "summary": "\ud800"}, "no text that UTF-8 can say"),
        ("a", {"start_to_close_timeout": 1, "summary": "x" * 2_001}, "2001 characters, at most 2000"),
        ("a", {"start_to_close_timeout": 1, "task_queue": 7}, "task_queue is 7; give a name as text"),
        ("a", {"start_to_close_timeout": 1, "task_queue": ""}, "task_queue is ''; give 1 to 1000 printable"),
        (
            "a",
            {"start_to_close_timeout": 1, "cancellation_type": "give up"},
            "cancellation_type is 'give up'; give one of CancellationType.TRY_CANCEL, .*ABANDON",
        ),
        (
            "a",
            {"start_to_close_timeout": 1, "retry_policy": {"a": 1}},
            "retry_policy is {'a': 1}; give a workflow.RetryPolicy",
        ),
        ("", {"start_to_close_timeout": 1}, "the name of the activity is ''; give 1 to 1000 printable"),
        ([], {"start_to_close_timeout": 1}, r"\[\] is no activity; give a function"),
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
        ({"backoff_coefficient": "2"}, "backoff_coefficient is '2'; it must be at least 1"),
        ({"backoff_coefficient": 10**400}, "at most 1000000"),
        ({"maximum_attempts": -1}, r"\(0 means no limit\) is -1; it must be between 0 and"),
        ({"maximum_attempts": 1.5}, "give a whole number"),
        ({"non_retryable_error_types": "ValueError"}, "give a list of names"),
        ({"non_retryable_error_types": 5}, "give a list of names"),
        ({"non_retryable_error_types": [5]}, "a name in non_retryable_error_types is 5; give a name as text"),
        ({"non_retryable_error_types": ["A"] * 101}, "holds 101 names, at most 100"),
    ],
)
def test_retry_policies_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RetryPolicy(**fields)


def test_a_checked_policy_stays_as_it_was_checked() -> None:
    names: list[Any] = ["A"]
    policy = RetryPolicy(non_retryable_error_types=names)
    names.append(5)
    assert policy.to_protocol().non_retryable_error_types == ("A",)
    read_once = RetryPolicy(non_retryable_error_types=(name for name in ["A"]))  # type: ignore[arg-type]
    assert read_once.to_protocol().non_retryable_error_types == ("A",)


@workflow.defn
class WaitsForTrue:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(True)  # type: ignore[arg-type]


def test_a_condition_is_a_function() -> None:
    with pytest.raises(WorkflowCodeError, match="the condition is True; give a function, such as lambda"):
        Run(WaitsForTrue).start()


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
