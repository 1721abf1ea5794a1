"""What authors call in workflow code. Each function speaks to the instance whose code runs."""

from __future__ import annotations

import asyncio
import random as _random
import uuid
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypedDict, TypeVar, TypeVarTuple, Unpack, overload

from orchestrator.errors import NotInWorkflow, UsageError
from orchestrator.protocol import values
from orchestrator.protocol.actions import ScheduleActivity
from orchestrator.protocol.texts import MAX_INT, check_int, check_name, check_summary, check_word
from orchestrator.protocol.values import CancellationType
from orchestrator.workflow.definition import annotations_of
from orchestrator.workflow.durations import Duration, to_ms, to_positive_ms
from orchestrator.workflow.handles import ActivityHandle
from orchestrator.workflow.instance import Instance, current
from orchestrator.workflow.publishing import to_action
from orchestrator.workflow.retry import RetryPolicy

DEFAULT_TASK_QUEUE: Final = "default"
"""Where activities run that name no queue."""

ACTIVITY_ATTRIBUTE: Final = "__orchestrator_activity__"
"""Set by ``@activity.defn``; its ``name`` is the activity's type."""

_DEFAULT_RETRY_POLICY = values.RetryPolicy()

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class ActivityOptions(TypedDict, total=False):
    """The keyword arguments of :func:`start_activity` and :func:`execute_activity`."""

    task_queue: str | None
    schedule_to_close_timeout: Duration | None
    schedule_to_start_timeout: Duration | None
    start_to_close_timeout: Duration | None
    retry_policy: RetryPolicy | None
    cancellation_type: CancellationType
    summary: str
    priority: int


_OPTIONS: Final = frozenset(ActivityOptions.__annotations__)

_NOT_BUILT: Final = {
    "heartbeat_timeout": "heartbeats are not built yet: leave heartbeat_timeout out; "
    "start_to_close_timeout bounds an attempt"
}
"""Options that Temporal has, and what to do without them: nothing would keep what they promise."""


@overload
def start_activity(
    activity: str, /, *args: Any, result_type: type[R], **options: Unpack[ActivityOptions]
) -> ActivityHandle[R]: ...
@overload
def start_activity(
    activity: str, /, *args: Any, **options: Unpack[ActivityOptions]
) -> ActivityHandle[Any]: ...
@overload
def start_activity(
    activity: Callable[[*Ts], Coroutine[Any, Any, R]], /, *args: *Ts, **options: Unpack[ActivityOptions]
) -> ActivityHandle[R]: ...
@overload
def start_activity(
    activity: Callable[[*Ts], R], /, *args: *Ts, **options: Unpack[ActivityOptions]
) -> ActivityHandle[R]: ...
def start_activity(
    activity: Any, /, *args: *Ts, result_type: Any = None, **options: Unpack[ActivityOptions]
) -> ActivityHandle[Any]:
    """Start an activity and go on; await the handle for its result.

    Args:
        activity: a function with ``@activity.defn``, or a name.
        args: its arguments.
        result_type: what the result is decoded as, if it differs from the function's annotation.
        options: see below; durations are seconds or ``timedelta``.

    At least one of the first two timeouts is required:

    - ``schedule_to_close_timeout``: the whole of it, all attempts and the waits between;
    - ``start_to_close_timeout``: one attempt;
    - ``schedule_to_start_timeout``: how long an attempt may wait for a worker;
    - ``task_queue``: which workers may run it, default ``"default"``;
    - ``retry_policy``: default :class:`RetryPolicy`, which retries for ever;
    - ``cancellation_type``: see :class:`ActivityHandle`;
    - ``summary``: one line for people; ``priority``: lower ones go first.

    There is no ``heartbeat_timeout`` yet, and giving one is an error.

    Raises:
        UsageError: an option is missing or makes no sense, or the function is no activity.
        PayloadError: an argument cannot be encoded, or they are too large together.
    """
    instance = _instance("start_activity")
    action, hint = _activity(instance, activity, args, result_type, options)
    return instance.activities.schedule(action, hint)


@overload
async def execute_activity(
    activity: str, /, *args: Any, result_type: type[R], **options: Unpack[ActivityOptions]
) -> R: ...
@overload
async def execute_activity(activity: str, /, *args: Any, **options: Unpack[ActivityOptions]) -> Any: ...
@overload
async def execute_activity(
    activity: Callable[[*Ts], Coroutine[Any, Any, R]], /, *args: *Ts, **options: Unpack[ActivityOptions]
) -> R: ...
@overload
async def execute_activity(
    activity: Callable[[*Ts], R], /, *args: *Ts, **options: Unpack[ActivityOptions]
) -> R: ...
async def execute_activity(
    activity: Any, /, *args: *Ts, result_type: Any = None, **options: Unpack[ActivityOptions]
) -> Any:
    """Run an activity and return its result. Arguments and errors are those of :func:`start_activity`.

    Raises:
        ActivityFailure: it failed for good; ``cause`` says why.
        asyncio.CancelledError: the task that awaits it was cancelled.
    """
    instance = _instance("execute_activity")
    action, hint = _activity(instance, activity, args, result_type, options)
    return await instance.activities.schedule(action, hint)


async def sleep(duration: Duration, *, summary: str = "") -> None:
    """Wait for a durable timer; 0 is one too, which fires at once.

    Raises:
        UsageError: the duration is negative or no duration, or the summary is no text.
    """
    loop = _instance("sleep").loop
    delay_ms = to_ms(duration, "the duration of workflow.sleep")
    summary = check_summary(summary)
    future = loop.create_future()
    timer = loop.start_timer(delay_ms, summary, _wake, (future,), None)
    try:
        await future
    finally:
        timer.cancel()


async def wait_condition(
    condition: Callable[[], bool],
    timeout: Duration | None = None,  # noqa: ASYNC109  # as in Temporal, where it is what people know
) -> None:
    """Wait until ``condition()`` is true. It is tested whenever all code of the run waits.

    A cancellation wins over a condition that became true in the same turn.

    Raises:
        TimeoutError: it did not become true in time.
        UsageError: the condition is no function, or the timeout no duration.
    """
    instance = _instance("wait_condition")
    timeout_ms = None if timeout is None else to_ms(timeout, "the timeout of workflow.wait_condition")
    if not callable(condition):
        raise UsageError(f"the condition is {condition!r}; give a function, such as lambda: self.done")
    future = instance.add_condition(condition)
    try:
        async with asyncio.timeout(None if timeout_ms is None else timeout_ms / 1_000):
            await future
    finally:
        instance.remove_condition(future)


def publish(
    topic: str,
    event: Any,
    *,
    key: str | bytes | None = None,
    headers: Mapping[str, str | bytes] | None = None,
) -> None:
    """Publish a business event: exactly once for consumers that read committed records, in order per run.

    It is durable with everything else that the code does until it waits, and leaves a little later, by
    itself; there is nothing to await. A topic that does not exist, or may not be written, blocks the run
    until it does; an event that was refused nevertheless is held back, with the later ones of its run.

    Args:
        topic: a topic of yours, by its full name; it must exist.
        event: its value: bytes as they are, None as a tombstone, and all else as JSON, like arguments of
            activities.
        key: chooses the partition; default the workflow id.
        headers: beside ``workflow-id``, ``run-id``, ``event-id``, ``workflow-type`` and ``content-type``,
            which are set for you. Only ``content-type`` may be given here too.

    Raises:
        UsageError: the topic's name, the key or a header cannot be one.
        PayloadError: the event cannot be encoded, or is larger than 256 KiB with its key and headers.
    """
    instance = _instance("publish")
    key = instance.workflow_id if key is None else key
    instance.publish(to_action(instance.converter, topic, event, key, headers))


def now() -> datetime:
    """The time of the turn, in UTC. It stands still between two awaits that really wait."""
    return datetime.fromtimestamp(_instance("now").now_ms / 1_000, UTC)


def time() -> float:
    """:func:`now` as seconds since 1970."""
    return _instance("time").now_ms / 1_000


def time_ns() -> int:
    """:func:`now` as nanoseconds since 1970."""
    return _instance("time_ns").now_ms * 1_000_000


def random() -> _random.Random:
    """The random numbers of this run: the same in each replay."""
    return _instance("random").random


def uuid4() -> uuid.UUID:
    """A UUID from :func:`random`."""
    return _instance("uuid4").uuid4()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowInfo:
    """What a run knows of itself.

    Attributes:
        namespace: where it lives.
        workflow_id: its id.
        run_id: this run of the id.
        workflow_type: the name of its definition.
        start_time: when the run started, in UTC.
        attempt: from 1.
        run_timeout: how long it may run, or None.
        first_run_id: the first run of the chain that this one continues; often this one.
        parent_workflow_id: who started it, or "".
        summary: one line for people.
        history_length: events in its history at the start of this turn.
    """

    namespace: str
    workflow_id: str
    run_id: str
    workflow_type: str
    start_time: datetime
    attempt: int
    run_timeout: timedelta | None
    first_run_id: str
    parent_workflow_id: str
    summary: str
    history_length: int


def info() -> WorkflowInfo:
    """What this run knows of itself."""
    instance = _instance("info")
    started = instance.started
    timeout_ms = started.run_timeout_ms
    return WorkflowInfo(
        namespace=instance.namespace,
        workflow_id=instance.workflow_id,
        run_id=instance.run_id,
        workflow_type=instance.definition.name,
        start_time=datetime.fromtimestamp(instance.start_time_ms / 1_000, UTC),
        attempt=1,
        run_timeout=None if timeout_ms is None else timedelta(milliseconds=timeout_ms),
        first_run_id=started.first_run_id or instance.run_id,
        parent_workflow_id=started.parent_workflow_id,
        summary=started.summary,
        history_length=instance.history_events,
    )


def in_workflow() -> bool:
    """Whether workflow code runs on this thread."""
    return current() is not None


def cancellation_reason() -> str | None:
    """Why somebody asked to cancel this run; None if nobody did."""
    return _instance("cancellation_reason").cancel_reason


def add_tag(tag: str) -> None:
    """Put a word on the event that closes the run; lists and descriptions show it. Twice is once."""
    _instance("add_tag").add_tag(tag)


def set_signal_handler(name: str, handler: Callable[..., Any] | None) -> None:
    """Handle a signal by a function, or by None no more. What came before is delivered now, in order.

    Raises:
        UsageError: the class does not declare the signal, and has no ``dynamic_signals``.
    """
    _instance("set_signal_handler").set_signal_handler(name, handler)


def set_query_handler(name: str, handler: Callable[..., Any] | None) -> None:
    """Answer a query by a function, or by None no more."""
    _instance("set_query_handler").set_query_handler(name, handler)


def all_handlers_finished() -> bool:
    """Whether no handler of a signal has begun and not ended.

    Wait for it at the end of ``run()``: what a handler has left to do when the run closes is lost.
    """
    return not _instance("all_handlers_finished").signals.running


# --- inside ---


def _instance(what: str) -> Instance:
    instance = current()
    if instance is None:
        raise NotInWorkflow(f"workflow.{what}() was called outside of a workflow; only workflow code can")
    return instance


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _activity(
    instance: Instance, activity: Any, args: tuple[Any, ...], result_type: Any, options: ActivityOptions
) -> tuple[ScheduleActivity, Any]:
    """The action, and what the result is decoded as."""
    instance.loop.guard("starting an activity")
    if isinstance(activity, str):
        name, hint = check_name(activity, "the name of the activity"), None
    elif callable(activity):
        name, hint = _name_and_result(activity)
    else:
        raise UsageError(f"{activity!r} is no activity; give a function with @activity.defn, or a name")
    for missing in options.keys() & _NOT_BUILT.keys():
        raise UsageError(f"activity {name!r}: {_NOT_BUILT[missing]}")
    if not options.keys() <= _OPTIONS:
        raise UsageError(
            f"activity {name!r} got the unknown option(s) {', '.join(sorted(options.keys() - _OPTIONS))}; "
            f"there are {', '.join(sorted(_OPTIONS))}"
        )
    schedule_to_close_ms = to_positive_ms(
        options.get("schedule_to_close_timeout"), "schedule_to_close_timeout"
    )
    start_to_close_ms = to_positive_ms(options.get("start_to_close_timeout"), "start_to_close_timeout")
    if schedule_to_close_ms is None and start_to_close_ms is None:
        raise UsageError(
            f"activity {name!r} has no time limit; give start_to_close_timeout (one attempt) or "
            "schedule_to_close_timeout (all of it)"
        )
    policy, queue = options.get("retry_policy"), options.get("task_queue")
    if not isinstance(policy, RetryPolicy | None):
        raise UsageError(f"retry_policy is {policy!r}; give a workflow.RetryPolicy")
    action = ScheduleActivity(
        activity_id=instance.activities.next_id,
        activity_type=name,
        task_queue=DEFAULT_TASK_QUEUE if queue is None else check_name(queue, "task_queue"),
        input=instance.converter.to_payloads(args),
        schedule_to_close_ms=schedule_to_close_ms,
        schedule_to_start_ms=to_positive_ms(
            options.get("schedule_to_start_timeout"), "schedule_to_start_timeout"
        ),
        start_to_close_ms=start_to_close_ms,
        retry_policy=_DEFAULT_RETRY_POLICY if policy is None else policy.to_protocol(),
        cancellation_type=check_word(
            CancellationType,
            options.get("cancellation_type", CancellationType.TRY_CANCEL),
            "cancellation_type",
        ),
        summary=check_summary(options.get("summary", "")),
        priority=check_int(options.get("priority", 0), "priority", minimum=-MAX_INT),
    )
    return action, hint if result_type is None else result_type


@lru_cache(maxsize=4_096)  # a program has fewer activities; the bound is for functions made at run time
def _name_and_result(activity: Any) -> tuple[str, Any]:
    definition = getattr(activity, ACTIVITY_ATTRIBUTE, None)
    if definition is None:
        what = getattr(activity, "__qualname__", repr(activity))
        raise UsageError(f"{what} is no activity; decorate it with @activity.defn, or give a name")
    name = check_name(definition.name, "the name of the activity")
    return name, annotations_of(activity).get("return")
