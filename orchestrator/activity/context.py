"""What an activity can ask about itself while it runs, on the loop or in a thread."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import msgspec

from orchestrator.errors import UsageError
from orchestrator.protocol.values import RetryPolicy


class ActivityInfo(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known about the attempt that runs. Times are Unix milliseconds, UTC."""

    workflow_id: str
    run_id: str
    workflow_type: str
    activity_id: int
    activity_type: str
    task_queue: str
    attempt: int
    scheduled_time_ms: int
    started_time_ms: int
    schedule_to_close_ms: int | None = None
    start_to_close_ms: int | None = None
    retry_policy: RetryPolicy = RetryPolicy()
    headers: dict[str, str] = {}

    @property
    def idempotency_key(self) -> str:
        """The same for all attempts of this activity, different for any other activity ever.

        An attempt may be lost after its effect took place, so give this key to the system that makes
        the effect (a payment provider, an upsert), and a repeat changes nothing.
        """
        return f"{self.run_id}/{self.activity_id}"


class Cancellation:
    """A flag that is set once, from the loop, and can be awaited on the loop or in threads."""

    __slots__ = ("_futures", "_loop", "_thread_event", "is_set")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.is_set = False
        self._loop = loop
        # Made when somebody waits: an attempt that does not, which is nearly all of them, pays nothing.
        self._futures: list[asyncio.Future[None]] | None = None
        self._thread_event: threading.Event | None = None

    def set(self) -> None:
        """Set the flag and wake all who wait."""
        with _events_change:
            self.is_set = True
            if self._thread_event is not None:
                self._thread_event.set()
        for future in self._futures or ():
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Return when the flag is set."""
        if not self.is_set:
            future = self._loop.create_future()
            if self._futures is None:
                self._futures = []
            self._futures.append(future)
            try:
                await future
            finally:
                self._futures.remove(future)

    def wait_in_thread(self, timeout_s: float | None) -> bool:
        """Block until the flag is set; False if ``timeout_s`` passed before."""
        with _events_change:
            if self.is_set:
                return True
            if self._thread_event is None:
                self._thread_event = threading.Event()
            event = self._thread_event
        return event.wait(timeout_s)


_events_change = threading.Lock()
"""Held for an instant when a flag is set, or first waited for in a thread. One for all: both are rare."""


class Context(msgspec.Struct, frozen=True, gc=False):
    """What :func:`info` and its neighbours answer from; the worker makes one per attempt."""

    info: ActivityInfo
    cancellation: Cancellation


CURRENT: ContextVar[Context] = ContextVar("orchestrator.activity")
"""The attempt that runs here. Set by the worker, copied into threads and tasks."""


def _context() -> Context:
    try:
        return CURRENT.get()
    except LookupError:
        raise UsageError(
            "this works only inside an activity that a worker runs; in a test of the bare function use "
            "activity.in_activity() to leave it out"
        ) from None


def in_activity() -> bool:
    """Whether an activity runs here."""
    return CURRENT.get(None) is not None


def info() -> ActivityInfo:
    """What is known about the attempt that runs here.

    Raises:
        UsageError: no activity runs here.
    """
    return _context().info


def is_cancelled() -> bool:
    """Whether this attempt was asked to stop: its workflow cancelled it, or the worker shuts down.

    A sync activity that runs long asks this now and then, cleans up and raises
    :class:`orchestrator.errors.CanceledError`; an async one gets ``asyncio.CancelledError`` where it awaits.
    """
    return _context().cancellation.is_set


async def wait_for_cancelled() -> None:
    """Return when this attempt is asked to stop. For async activities.

    The activity itself gets ``asyncio.CancelledError`` at the same moment, so use this in a task beside it.
    """
    await _context().cancellation.wait()


def wait_for_cancelled_sync(timeout_s: float | None = None) -> bool:
    """Block until this attempt is asked to stop; False if ``timeout_s`` passed first. For sync activities."""
    return _context().cancellation.wait_in_thread(timeout_s)


class _ActivityLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds what identifies the attempt to each record, as fields; outside of an activity it adds nothing."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        context = CURRENT.get(None)
        if context is not None:
            about = context.info
            kwargs["extra"] = {
                "workflow_id": about.workflow_id,
                "run_id": about.run_id,
                "activity_id": about.activity_id,
                "activity_type": about.activity_type,
                "attempt": about.attempt,
                **(kwargs.get("extra") or {}),
            }
        return msg, kwargs


logger = _ActivityLogger(logging.getLogger("orchestrator.activity"), {})
"""A logger whose records carry workflow_id, run_id, activity_id, activity_type and attempt."""
