"""Whatever values workflow code passes to this package, its run goes on or is blocked; it is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator import activity, workflow
from orchestrator.codec import avro
from orchestrator.errors import ActivityFailure, ApplicationError, TimeoutFailure
from orchestrator.log.topics import HISTORY
from orchestrator.protocol import events as e
from orchestrator.protocol.actions import Action
from orchestrator.protocol.records import Turn
from orchestrator.workflow import ActivityCancellationType, RetryPolicy
from tests.unit.coordinator.kit import Bench, start


class Text(str):
    """A text that is more than one."""


class Queue(StrEnum):
    SLOW = "slow"


class Level(IntEnum):
    HIGH = 1


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None), max_size=5),
    st.binary(max_size=5),
    st.sampled_from([
        10**400, -1, 2**63, -(2**63), 2**31, "", "\ud800", "a\x00", "a\nb", "x" * 5_000, "x" * 600_000,
        Text("t"), Queue.SLOW, Level.HIGH, "try-cancel", "abandon", b"", bytearray(b"x"),
        timedelta.max, timedelta.min, timedelta(microseconds=1), timedelta(days=1), 1 + 2j, object(), object,
        KeyError, print, [], ["a"], [5], ["\ud800"], ["x"] * 200, (), {}, {"a": 1}, {5: "x"},
        {"\ud800": b""}, {Text("t"): Text("v")}, {"k": object()}, {"content-type": 5}, {1, 2}, ...,
    ]),
)  # fmt: skip

POLICY = {
    "initial_interval": 1.0,
    "backoff_coefficient": 2,
    "maximum_interval": None,
    "maximum_attempts": 3,
    "non_retryable_error_types": ["A"],
}


async def fail(**fields: Any) -> None:
    message, details = fields.pop("message"), fields.pop("details")
    raise ApplicationError(message, details, **fields)


async def fail_as_an_activity(**fields: Any) -> None:
    raise ActivityFailure(fields.pop("message"), **fields)


async def fail_as_a_timeout(message: Any, timeout_type: Any) -> None:
    raise TimeoutFailure(message, timeout_type=timeout_type)


async def define(name: Any) -> None:
    async def charge() -> None: ...

    workflow.start_activity(activity.defn(name=name)(charge), start_to_close_timeout=1)


async def declare(name: Any) -> None:
    @workflow.defn(name=name)
    class Other:
        @workflow.run
        async def run(self) -> None: ...


async def give_back(result: Any) -> Any:
    return result


CALLS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "activity": (
        lambda **o: workflow.execute_activity(o.pop("activity"), o.pop("argument"), **o),
        {
            "activity": "charge",
            "argument": 1,
            "task_queue": None,
            "schedule_to_close_timeout": timedelta(days=1),
            "schedule_to_start_timeout": None,
            "start_to_close_timeout": 5,
            "retry_policy": None,
            "cancellation_type": ActivityCancellationType.TRY_CANCEL,
            "summary": "",
            "priority": 0,
        },
    ),
    "policy": (
        lambda **o: workflow.execute_activity(
            "charge", start_to_close_timeout=1, retry_policy=RetryPolicy(**o)
        ),
        POLICY,
    ),
    "defined activity": (define, {"name": "charge"}),
    "defined workflow": (declare, {"name": "Other"}),
    "sleep": (workflow.sleep, {"duration": 1, "summary": ""}),
    "wait": (workflow.wait_condition, {"condition": lambda: True, "timeout": 1}),
    "publish": (
        lambda **o: asyncio.sleep(0, workflow.publish(o.pop("topic"), o.pop("event"), **o)),
        {"topic": "orders", "event": 1, "key": None, "headers": None},
    ),
    "tag": (lambda tag: asyncio.sleep(0, workflow.add_tag(tag)), {"tag": "late"}),
    "signal handler": (
        lambda name, handler: asyncio.sleep(0, workflow.set_signal_handler(name, handler)),
        {"name": "told", "handler": print},
    ),
    "query handler": (
        lambda name, handler: asyncio.sleep(0, workflow.set_query_handler(name, handler)),
        {"name": "asked", "handler": print},
    ),
    "failure": (
        fail,
        {"message": "no", "details": 1, "type": None, "non_retryable": False, "next_retry_delay": None},
    ),
    "activity's failure": (
        fail_as_an_activity,
        {"message": "no", "activity_type": "a", "activity_id": 1, "attempt": 1, "retry_state": ""},
    ),
    "timeout": (fail_as_a_timeout, {"message": "late", "timeout_type": "run"}),
    "result": (give_back, {"result": 1}),
}
"""What workflow code can call, with values that are as they should be."""

OURS = {"UsageError", "DefinitionError", "PayloadError", "RecordRefused"}
"""Errors that say what is wrong with a value."""


@workflow.defn(name="Order", dynamic_signals=True)
class Odd:
    """Makes one call, and then waits for ever if it still waits for the call."""

    call: Callable[[], Any]

    @workflow.run
    async def run(self) -> Any:
        return await Odd.call()


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A call, with one or two values that are odd."""
    name = draw(st.sampled_from(sorted(CALLS)))
    good = CALLS[name][1]
    odd = draw(st.sets(st.sampled_from(sorted(good)), min_size=1, max_size=2))
    return name, {**good, **{which: draw(ODD) for which in sorted(odd)}}


class Thrower:
    """Starts a run for each call, and sees what becomes of it."""

    def __init__(self, folder: Path) -> None:
        self.bench = Bench(folder, Odd)
        self.runs = 0

    def blocks(self, name: str, values: dict[str, Any]) -> bool:
        """Whether a call blocks its run; whatever it does, the engine knows what became of it."""
        bench, self.runs = self.bench, self.runs + 1
        Odd.call = staticmethod(lambda: CALLS[name][0](**dict(values)))
        history = bench.cluster.partition(HISTORY, 0)
        before = history.end
        bench.send(start(f"w-{self.runs}", f"start-{self.runs}"))
        assert not bench.partition.poisoned
        assert not bench.letters
        records = [avro.decode(record.value or b"") for record in history.read(before, 1_000_000)]
        events = [event for turn in records if isinstance(turn, Turn) for event in turn.events]
        assert isinstance(events[0], e.WorkflowStarted)
        failures = [event.failure for event in events if isinstance(event, e.WorkflowBlocked)]
        assert {failure.type for failure in failures} <= OURS, failures
        return bool(failures)


@pytest.mark.parametrize("name", CALLS)
def test_each_call_is_accepted_as_it_should_be_and_refused_as_it_should_not(
    name: str, tmp_path: Path
) -> None:
    thrower, good = Thrower(tmp_path), CALLS[name][1]
    assert not thrower.blocks(name, good)
    refused = [which for which in good if thrower.blocks(name, {**good, which: object()})]
    assert bool(refused) is (name not in CANNOT_BE_REFUSED)


def test_no_value_loses_a_run(tmp_path: Path) -> None:
    thrower = Thrower(tmp_path)

    @settings(max_examples=400, database=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(calls())
    def throw(made: tuple[str, dict[str, Any]]) -> None:
        thrower.blocks(*made)

    throw()


CANNOT_BE_REFUSED = ("activity's failure", "timeout")
"""A failure is told as well as it can be, whatever is in it."""


def test_every_action_that_code_can_ask_for_is_thrown_at() -> None:
    """Who adds a field to an activity, or an action, has to say here what its values may be."""
    options = set(workflow.ActivityOptions.__annotations__)
    assert options == CALLS["activity"][1].keys() - {"activity", "argument"}
    assert POLICY.keys() == set(RetryPolicy.__dataclass_fields__)
    assert {kind.__name__ for kind in Action.__args__} == {
        "ScheduleActivity", "RequestCancelActivity", "StartTimer", "CancelTimer", "PublishEvent",
        "CompleteWorkflow", "FailWorkflow", "AcceptCancel",
    }  # fmt: skip
