"""Runs one attempt of an activity: async functions on the loop, sync ones in threads.

What an activity does, whatever it raises, ends as a report; nothing it raises reaches the worker.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from enum import Enum
from math import inf
from types import TracebackType

from orchestrator.activity.context import CURRENT, ActivityInfo, Cancellation, Context
from orchestrator.activity.definition import ActivityDefinition
from orchestrator.codec.failures import to_failure
from orchestrator.codec.payloads import PayloadConverter
from orchestrator.errors import ApplicationError, CanceledError, PayloadError
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.protocol.values import Failure
from orchestrator.worker.inbox import key_of
from orchestrator.worker.reports import Report, Reports, stopped_failure

_log = logging.getLogger(__name__)

OVERDUE_AFTER_S = 5.0
"""How long past its timeout an attempt may run before the worker stops it to free the slot. The
coordinator decides timeouts; this one only has to come after its verdict."""

_MACHINERY = ("orchestrator.worker.", "orchestrator.codec.", "concurrent.futures.")
"""Frames of these modules at the top of a traceback tell the author of an activity nothing."""


class Stop(Enum):
    """Why an attempt was told to stop before its end."""

    CANCEL_REQUESTED = "its cancellation was requested"
    SHUTDOWN = "the worker shuts down"
    LOST = "coordinators have given its incarnation up, and the attempt with it"
    OVERDUE = "its timeout has long passed"


class Attempt:
    """One attempt from its start to its report."""

    __slots__ = ("_awaiting", "_cancellation", "_definition", "key", "overdue_at", "stopped", "task")

    def __init__(
        self, task: ActivityTask, definition: ActivityDefinition | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.task = task
        self.key = key_of(task)
        self.stopped: Stop | None = None
        self.overdue_at = loop.time() + _time_left_s(task)
        """When it is to be stopped because nobody waits for it any more, by the loop's time."""
        self._definition = definition
        self._cancellation = Cancellation(loop)
        self._awaiting: asyncio.Task[object] | None = None

    def stop(self, why: Stop) -> None:
        """Tell the activity to stop, once, for the first reason: async ones by ``CancelledError``, sync
        ones by their flag alone, since a thread cannot be interrupted.
        """
        if self.stopped is None:
            self.stopped = why
            self._cancellation.set()
            if self._definition is not None and self._definition.is_async:
                self.abandon()

    def abandon(self) -> None:
        """Wait for the activity no longer; a thread that still runs it is left alone."""
        if self._awaiting is not None:
            self._awaiting.cancel()

    async def run(self, threads: Executor, converter: PayloadConverter, reports: Reports) -> Report | None:
        """Run the activity. Returns the report; None if nobody waits for one."""
        task, started_time_ms = self.task, time.time_ns() // 1_000_000
        try:
            result = await self._call(threads, converter, started_time_ms)
        except (asyncio.CancelledError, CanceledError) as error:
            return self._stopped_report(error, converter, reports, started_time_ms)
        except GeneratorExit:
            raise  # the loop is being torn down
        except BaseException as error:
            if not isinstance(error, Exception):
                _log.error("activity %r raised %r; the worker goes on", task.activity_type, error)
            return reports.failed(task, started_time_ms, _failure(error, converter))
        try:
            return reports.completed(task, started_time_ms, converter.to_payload(result))
        except PayloadError as error:
            # Another attempt would have the same effect again and return the same.
            refused = ApplicationError(
                f"the result of activity {task.activity_type!r} cannot be sent: {error}",
                type="PayloadError",
                non_retryable=True,
            )
            return reports.failed(task, started_time_ms, _failure(refused, converter))

    async def _call(self, threads: Executor, converter: PayloadConverter, started_time_ms: int) -> object:
        task, definition = self.task, self._definition
        if self.stopped is not None:
            raise asyncio.CancelledError
        if definition is None:
            raise ApplicationError(
                f"this worker has no activity {task.activity_type!r}; register it, or run the activity "
                f"on another task queue than {task.task_queue!r}",
                type="UnknownActivity",
            )
        arguments = converter.from_payloads(task.input, definition.hints_for(len(task.input)))
        CURRENT.set(Context(_info(task, started_time_ms), self._cancellation))
        self._awaiting = current = asyncio.current_task()
        try:
            if definition.is_async:
                return await definition.fn(*arguments)
            context = contextvars.copy_context()
            return await asyncio.get_running_loop().run_in_executor(
                threads, context.run, _in_thread, definition.fn, arguments
            )
        finally:
            self._awaiting = None
            # From here on the task belongs to the worker again: its report is not to be cancelled.
            while current is not None and current.cancelling():
                current.uncancel()

    def _stopped_report(
        self, error: BaseException, converter: PayloadConverter, reports: Reports, started_time_ms: int
    ) -> Report | None:
        task = self.task
        if self.stopped is Stop.CANCEL_REQUESTED:
            return reports.canceled(task, started_time_ms)
        if self.stopped is Stop.SHUTDOWN:
            return reports.failed(task, started_time_ms, stopped_failure(task))
        if self.stopped is not None:
            return None
        unasked = ApplicationError(
            f"activity {task.activity_type!r} cancelled itself: {error!r}", type=type(error).__name__
        )
        unasked.__cause__ = error
        return reports.failed(task, started_time_ms, _failure(unasked, converter))


def _in_thread(fn: Callable[..., object], arguments: list[object]) -> object:
    try:
        return fn(*arguments)
    except StopIteration as error:  # a future cannot carry it: whoever awaits it would wait for ever
        raise RuntimeError("the activity raised StopIteration") from error


def _info(task: ActivityTask, started_time_ms: int) -> ActivityInfo:
    return ActivityInfo(
        workflow_id=task.workflow_id,
        run_id=task.run_id,
        workflow_type=task.workflow_type,
        activity_id=task.activity_id,
        activity_type=task.activity_type,
        task_queue=task.task_queue,
        attempt=task.attempt,
        scheduled_time_ms=task.scheduled_time_ms,
        started_time_ms=started_time_ms,
        schedule_to_close_ms=task.schedule_to_close_ms,
        start_to_close_ms=task.start_to_close_ms,
        retry_policy=task.retry_policy,
        headers=task.headers,
    )


def _time_left_s(task: ActivityTask) -> float:
    """Until the attempt is overdue, from its start."""
    left_ms = inf if task.start_to_close_ms is None else task.start_to_close_ms
    if task.schedule_to_close_ms is not None:
        spent_ms = task.dispatched_time_ms - task.scheduled_time_ms
        left_ms = min(left_ms, task.schedule_to_close_ms - spent_ms)
    return left_ms / 1_000 + OVERDUE_AFTER_S


def _failure(error: BaseException, converter: PayloadConverter) -> Failure:
    frames: TracebackType | None = error.__traceback__
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__")).startswith(_MACHINERY):
        frames = frames.tb_next
    return to_failure(error.with_traceback(frames), converter)
