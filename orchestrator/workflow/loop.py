"""The event loop of one run: a deque and a time, no selector, no clock, no thread.

What plain asyncio asks of a loop is answered deterministically: callbacks run in the order in which
they were scheduled, time stands still within an activation, and a delay is a durable timer, which the
host is asked for. So ``asyncio.sleep``, ``wait_for``, ``timeout``, locks, queues and events work as they
are. What cannot be replayed is refused, see ``refusals``.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio import tasks
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from math import isfinite
from typing import Any, Protocol, TypeVar, TypeVarTuple

from orchestrator.errors import ReadOnlyViolation, UsageError
from orchestrator.workflow.refusals import RefusingLoop

ResultT = TypeVar("ResultT")
Ts = TypeVarTuple("Ts")

MAX_EVICTIONS = 100
"""How often code of a dropped instance is told so before it is left to wait; see ``WorkflowLoop.guard``."""


class Evicted(SystemExit):
    """The instance is being dropped; nothing that its code still does counts.

    Also raised into a thread whose activation does not end. A ``SystemExit``, because those are the only
    exceptions that ``asyncio.Task`` passes on at once instead of keeping them for whoever awaits it; and
    a thread that it ends prints nothing.
    """


class Mode(Enum):
    """What code that runs on the loop may do: all, only look, or nothing more."""

    OPEN = "open"
    READ_ONLY = "read-only"
    EVICTED = "evicted"


class Host(Protocol):
    """Who owns a loop: it makes the durable timers and hears of errors that nobody awaits."""

    def start_timer(self, delay_ms: int, summary: str) -> int:
        """Ask for a timer and return its number; :meth:`WorkflowLoop.fire` tells when its time has come."""

    def cancel_timer(self, timer_id: int) -> None:
        """A timer that has not fired is no longer wanted."""

    def callback_failed(self, error: BaseException) -> None:
        """A callback raised ``error``."""

    def report(self, message: str, error: BaseException | None) -> None:
        """Something went wrong that no code waits for: to be logged."""


class _Nobody:
    """The host of a loop whose instance was dropped: what still happens there does not count."""

    def start_timer(self, delay_ms: int, summary: str) -> int:
        return 0

    def cancel_timer(self, timer_id: int) -> None:
        pass

    def callback_failed(self, error: BaseException) -> None:
        pass

    def report(self, message: str, error: BaseException | None) -> None:
        pass


_NOBODY = _Nobody()


class Task(asyncio.Task[ResultT]):
    """A task that knows its place among the futures of its loop; see ``ordered``."""

    __slots__ = ("number",)

    number: int


class _Handle(asyncio.Handle):
    """A scheduled callback. Does not call the base's ``__init__``, which costs more than all of this."""

    __slots__ = ()

    _callback: Callable[..., object]
    _args: tuple[Any, ...]
    _cancelled: bool
    _context: contextvars.Context

    def __init__(self, loop: WorkflowLoop, callback: Callable[..., object], args: Any, context: Any) -> None:
        self._loop = loop
        self._callback = callback
        self._args = args
        self._context = contextvars.copy_context() if context is None else context
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class _TimerHandle(_Handle, asyncio.TimerHandle):
    """A callback that a durable timer runs."""

    __slots__ = ("timer_id",)

    _when: float
    timer_id: int

    def cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            self._loop.forget_timer(self.timer_id)


class _Activation:
    """The time in which a loop is the running one of its thread; what was there before comes back."""

    __slots__ = ("_hooks", "_loop", "_outer", "_outer_task")

    def __init__(self, loop: WorkflowLoop) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        self._outer = outer = asyncio._get_running_loop()
        self._outer_task = None if outer is None else asyncio.current_task(outer)
        if outer is not None and self._outer_task is not None:
            tasks._leave_task(outer, self._outer_task)
        self._hooks = sys.get_asyncgen_hooks()
        asyncio._set_running_loop(self._loop)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=self._loop.finalize_generator)

    def __exit__(self, *error: object) -> None:
        sys.set_asyncgen_hooks(*self._hooks)
        asyncio._set_running_loop(self._outer)
        if self._outer is not None and self._outer_task is not None:
            tasks._enter_task(self._outer, self._outer_task)


class WorkflowLoop(RefusingLoop):
    """A deterministic event loop; it runs only inside :meth:`activation`.

    Attributes:
        host: the instance that the loop belongs to.
        mode: what code may do at the moment.
        refused: what code asked for, in the words of its refusal, while it could only look.
        now_ms: the time of the activation.
        tasks: the tasks that are not done, in order of creation. Nothing else keeps them alive: asyncio
            holds them weakly, and a task that vanishes runs its ``finally`` when the collector pleases.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self.mode = Mode.OPEN
        self.refused: list[str] = []
        self.now_ms = 0
        self.tasks: dict[Task[Any], None] = {}
        self._ready: deque[_Handle] = deque()
        self._timers: dict[int, _TimerHandle] = {}
        self._numbers = 0
        self._evictions = 0
        self._halted = False

    # --- for the host ---

    def activation(self) -> _Activation:
        """Make this the running loop of the thread, within a ``with`` block."""
        return _Activation(self)

    def run_ready(self) -> None:
        """Run callbacks, and those that they schedule, until none is left or the host halts the loop."""
        ready = self._ready
        while ready and not self._halted:
            handle = ready.popleft()
            if handle._cancelled:
                continue
            try:
                handle._context.run(handle._callback, *handle._args)
            except (Evicted, KeyboardInterrupt):
                raise
            except BaseException as error:
                self.host.callback_failed(error)
            if self.mode is Mode.EVICTED:
                raise Evicted("the instance was evicted while it ran")

    def has_ready(self) -> bool:
        """Whether there is something to run."""
        return bool(self._ready) and not self._halted

    def halt(self) -> None:
        """Run nothing more."""
        self._halted = True

    def guard(self, what: str) -> None:
        """Raise unless code may do ``what`` now.

        Code that catches ``Evicted`` again and again gets, in the end, what it asks for, without effect:
        then it awaits what never comes, and whoever drops the instance has its thread back.
        """
        if self.mode is Mode.OPEN:
            return
        if self.mode is Mode.READ_ONLY:
            self.refused.append(what)
            raise ReadOnlyViolation(f"{what} changes the workflow; a query may only look at it")
        if self._evictions < MAX_EVICTIONS:
            self._evictions += 1
            raise Evicted(f"{what}: the instance is being dropped")

    def next_number(self) -> int:
        """A number for a new future, from 1."""
        self._numbers += 1
        return self._numbers

    def start_timer(
        self, delay_ms: int, summary: str, callback: Callable[..., object], args: Any, context: Any
    ) -> asyncio.TimerHandle:
        """Run the callback when a durable timer of ``delay_ms`` fires."""
        self.guard("a timer")
        handle = _TimerHandle(self, callback, args, context)
        handle._when = (self.now_ms + delay_ms) / 1_000
        handle.timer_id = self.host.start_timer(delay_ms, summary)
        self._timers[handle.timer_id] = handle
        return handle

    def forget_timer(self, timer_id: int) -> None:
        """Cancel a timer, unless it has fired."""
        if self._timers.pop(timer_id, None) is not None and self.mode is not Mode.EVICTED:
            self.host.cancel_timer(timer_id)

    def fire(self, timer_id: int) -> None:
        """A timer's time has come; one that was cancelled is ignored."""
        handle = self._timers.pop(timer_id, None)
        if handle is not None:
            self._ready.append(handle)

    def drop(self) -> None:
        """Forget everything that is scheduled, and the host.

        Host and loop know each other; left so, each run would wait for the garbage collector, which costs
        as much as running its code did.
        """
        self.host = _NOBODY
        self._halted = True
        self._ready.clear()
        self._timers.clear()
        self.tasks.clear()

    # --- for asyncio ---

    def time(self) -> float:
        """Seconds since 1970: the time of the activation, the same for all code in it."""
        return self.now_ms / 1_000

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run the callback after those that are scheduled already."""
        if self.mode is Mode.READ_ONLY:
            self.guard("scheduling a callback")
        handle = _Handle(self, callback, args, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run the callback after ``delay`` seconds of a durable timer, rounded to milliseconds."""
        if not isfinite(delay):
            raise UsageError(f"a timer of {delay} seconds; leave it out if it shall never fire")
        return self.start_timer(max(0, round(delay * 1_000)), "", callback, args, context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Run the callback at ``when`` on the scale of :meth:`time`."""
        return self.call_later(when - self.time(), callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        if self.mode is not Mode.OPEN:
            self.guard("waiting")
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, ResultT] | Coroutine[Any, Any, ResultT],
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **kwargs: Any,
    ) -> asyncio.Task[ResultT]:
        """A task of this loop. Without a name it is called by its number, which is the same in a replay."""
        if self.mode is not Mode.OPEN:
            coro.close()  # else Python warns that nobody awaited it
            self.guard("create_task")
        number = self.next_number()
        task: Task[ResultT] = Task(
            coro,
            loop=self,
            name=f"Task-{number}" if name is None else str(name),
            context=context,
            **kwargs,
        )
        task.number = number
        self.tasks[task] = None
        task.add_done_callback(self._task_done)
        return task

    def get_debug(self) -> bool:
        """Never: asyncio's debug mode reads clocks."""
        return False

    def set_debug(self, enabled: bool) -> None:
        """Ignored, see :meth:`get_debug`."""

    def is_running(self) -> bool:
        """Whether the loop runs on this thread."""
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        """Whether the instance was dropped."""
        return self.mode is Mode.EVICTED

    def get_task_factory(self) -> None:
        """None: tasks are always this loop's."""

    def get_exception_handler(self) -> None:
        """None: the host decides."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Asyncio tells of an error that nobody retrieved.

        Without an exception, or with ``Evicted``, it tells of tasks that were dropped with their instance,
        which is no error.
        """
        error = context.get("exception")
        if error is not None and not isinstance(error, Evicted):
            self.host.report(str(context.get("message", "error in a callback")), error)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """As :meth:`call_exception_handler`."""
        self.call_exception_handler(context)

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: generators are finalized one by one."""

    async def shutdown_default_executor(self) -> None:
        """Nothing to do: there is none."""

    def _task_done(self, task: Any) -> None:
        self.tasks.pop(task, None)

    def finalize_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """A generator lost its last reference. The garbage collector may say so on any thread."""
        if asyncio._get_running_loop() is not self:
            return
        if self.mode is Mode.OPEN:
            self.create_task(generator.aclose())
        else:
            with suppress(BaseException):  # it is dropped, whatever its finally blocks raise
                generator.aclose().send(None)


@contextmanager
def outside() -> Iterator[None]:
    """Step out of the workflow: what runs within is the engine's own, and may use clocks and files."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)
