"""The live coroutine of one run: facts go in, actions come out.

An activation is always the same three steps: apply all facts, in order; run until nothing is ready,
test the wait conditions, and again; hand back what the code asked for, a terminal action last. What
applying a fact does is a table at the end of the file. Nothing here knows of logs, clocks or threads.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from orchestrator.codec import failures, payloads
from orchestrator.codec.payloads import PayloadConverter
from orchestrator.errors import (
    ApplicationError,
    DefinitionError,
    NotDeterministic,
    PayloadError,
    QueryFailed,
    ReadOnlyViolation,
    UnknownName,
    UsageError,
)
from orchestrator.protocol.actions import (
    AcceptCancel,
    Action,
    CancelTimer,
    CompleteWorkflow,
    FailWorkflow,
    PublishEvent,
    StartTimer,
)
from orchestrator.protocol.events import (
    ActivityCanceled,
    ActivityCompleted,
    ActivityFailed,
    ActivityTimedOut,
    EventBase,
    Fact,
    TimerFired,
    WorkflowCancelRequested,
    WorkflowSignaled,
    WorkflowStarted,
)
from orchestrator.protocol.values import Payload, Payloads
from orchestrator.workflow.activities import Actions, Activities
from orchestrator.workflow.closing import close_coroutine
from orchestrator.workflow.definition import Handler, WorkflowDefinition
from orchestrator.workflow.loop import Evicted, Mode, WorkflowLoop, outside
from orchestrator.workflow.outcomes import (
    WorkflowCodeError,
    is_cancellation,
    is_declared,
    never_asked,
)
from orchestrator.workflow.readonly import Snapshot
from orchestrator.workflow.signals import Signals, with_handler
from orchestrator.workflow.stack import STACK_QUERY, describe_stack

__all__ = ["Evicted", "Instance", "WorkflowCodeError", "current"]

MAX_TAGS: Final = 32
"""Tags of a run: they are words to filter lists by, not a place for data."""

MAX_TAG_CHARS: Final = 100
"""A tag is a word."""

_logger = logging.getLogger("orchestrator.workflow")


class Instance:
    """The code of one run, as far as it has come.

    Attributes:
        definition: the workflow.
        workflow_id: its id.
        run_id: its run; random numbers follow from it.
        namespace: where it lives.
        started: the first event of the run.
        start_time_ms: when that was.
        converter: encodes and decodes values.
        history_events: events in history, at the start of the activation.
        replaying: whether the activation happened before: nothing is logged.
        cancel_reason: why somebody asked to cancel the run, or None.
        closed: a terminal action was made.
        activities: those that the code started.
        signals: their handlers, and what waits for one.
    """

    __slots__ = (
        "_actions",
        "_conditions",
        "_error",
        "_last_timer",
        "_loop",
        "_main",
        "_object",
        "_published",
        "_queries",
        "_random",
        "_tags",
        "_terminal",
        "_unusable",
        "activities",
        "cancel_reason",
        "closed",
        "converter",
        "definition",
        "history_events",
        "namespace",
        "replaying",
        "run_id",
        "signals",
        "start_time_ms",
        "started",
        "workflow_id",
    )

    def __init__(
        self,
        definition: WorkflowDefinition,
        *,
        workflow_id: str,
        run_id: str,
        started: WorkflowStarted,
        start_time_ms: int,
        converter: PayloadConverter = payloads.DEFAULT,
        namespace: str = "default",
    ) -> None:
        self.definition = definition
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.namespace = namespace
        self.started = started
        self.start_time_ms = start_time_ms
        self.converter = converter
        self.history_events = 0
        self.replaying = False
        self.cancel_reason: str | None = None
        self.closed = False
        self._loop = WorkflowLoop(self)  # type: ignore[abstract]  # the rest comes from a table
        self._main: asyncio.Task[None] | None = None
        self._object: Any = None
        self._actions: Actions = {}
        self.activities = Activities(self._loop, self._actions, converter)
        self.signals = Signals(definition)
        self._last_timer = 0
        self._published = 0
        self._conditions: dict[asyncio.Future[None], tuple[Callable[[], bool], contextvars.Context]] = {}
        self._queries: Mapping[str, Handler] = definition.queries
        self._tags: tuple[str, ...] = ()
        self._terminal: CompleteWorkflow | FailWorkflow | AcceptCancel | None = None
        self._random: random.Random | None = None
        self._error: BaseException | None = None
        self._unusable = ""

    # --- for the engine's side ---

    def activate(
        self, facts: Sequence[Fact], time_ms: int, *, replaying: bool = False, history_events: int = 0
    ) -> tuple[Action, ...]:
        """Tell the code what happened, run it until it waits, and return what it asked for.

        The first fact of the first call is the ``WorkflowStarted``. Facts that the code no longer waits
        for are ignored. Time is ``time_ms`` throughout.

        Raises:
            WorkflowCodeError: the code cannot go on; the instance must be closed.
            Evicted: it was raised into this thread, or :meth:`evict` was called; likewise.
        """
        self._check_usable()
        self._loop.now_ms = time_ms
        self.replaying = replaying
        self.history_events = history_events
        self._unusable = "its last activation did not end"
        with self._loop.activation():
            try:
                for fact in facts:
                    _APPLY[type(fact)](self, fact)
            except NotDeterministic as error:
                self._fail(error)
            if self._main is None:
                self._start()
            self._run_until_idle()
        if self._error is not None:
            self._unusable = "its code failed"
            raise WorkflowCodeError(failures.to_failure(self._error, self.converter)) from self._error
        self._unusable = ""
        actions = tuple(self._actions.values())
        self._actions.clear()
        if self._terminal is None or self.closed:
            return actions
        self.closed = True
        if self.signals.running:
            self._warn_of_unfinished()
        return (*actions, self._terminal)

    def query(self, name: str, input: Payloads) -> Payload:
        """Answer a query; the code may look at everything and change nothing.

        A handler that changes the workflow all the same is noticed, as far as :mod:`.readonly` can see;
        then the instance is not :attr:`usable` any more, for a replay would not come to the same state.

        Raises:
            UnknownName: there is no such query; the message lists those that there are.
            QueryFailed: the handler raised, changed the workflow, or arguments or answer cannot be
                converted.
        """
        self._check_usable()
        if name == STACK_QUERY:
            return self.converter.to_payload(describe_stack(self._loop.tasks))
        handler = self._queries.get(name)
        if handler is None:
            known = ", ".join(sorted({*self._queries, STACK_QUERY}))
            raise UnknownName(f"workflow {self.definition.name!r} has no query {name!r}; it has {known}")
        before = Snapshot({"self": self._object, "handler": handler.fn})
        self._loop.mode = Mode.READ_ONLY
        self._unusable = "its last query did not end"
        try:
            with self._loop.activation():
                args = self._decode(handler, input)
                result = contextvars.Context().run(self._bound(handler), *args)
                answer = self.converter.to_payload(result)
        except (Evicted, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._check_unchanged(name, before)
            raise QueryFailed(f"query {name!r} raised {type(error).__name__}: {error}") from error
        finally:
            self._loop.mode = Mode.OPEN
        self._check_unchanged(name, before)
        return answer

    def _check_unchanged(self, name: str, before: Snapshot) -> None:
        """Raise unless a query did no more than to look."""
        changes = [*before.changes(), *(f"{what} (refused)" for what in self._loop.refused)]
        if not changes:
            self._unusable = ""
            return
        self._unusable = f"query {name!r} changed it"
        violation = ReadOnlyViolation(
            f"query {name!r} changes the workflow: {', '.join(changes)}; a query may only look, so make the "
            "change in a signal. It is undone: the run goes on from its history"
        )
        raise QueryFailed(str(violation)) from violation

    def evict(self) -> None:
        """End a running activation as soon as its code calls or awaits anything. For other threads."""
        self._loop.mode = Mode.EVICTED

    def close(self) -> None:
        """Drop the instance. ``finally`` blocks run, but each call of the API in them raises ``Evicted``.

        Nothing that they do leaves a trace. Code is never told that it was cancelled, because it was not.
        """
        loop = self._loop
        loop.mode = Mode.EVICTED
        self._unusable = "it was closed"
        if loop.tasks or loop.has_ready():  # not so after the end of a run, as a rule
            with loop.activation():
                for task in list(loop.tasks):
                    close_coroutine(task.get_coro())
        loop.drop()
        self._actions.clear()
        self._conditions.clear()
        self.activities.forget()
        self._main = self._object = None

    @property
    def usable(self) -> bool:
        """Whether it may be called again; if not, close it and make another from history."""
        return not self._unusable

    # --- for the API ---

    @property
    def loop(self) -> WorkflowLoop:
        """The event loop of the run."""
        return self._loop

    @property
    def now_ms(self) -> int:
        """The time of the activation."""
        return self._loop.now_ms

    @property
    def random(self) -> random.Random:
        """The random numbers of the run: they follow from its id."""
        self._loop.guard("drawing a random number")
        if self._random is None:
            self._random = random.Random(hashlib.sha256(self.run_id.encode()).digest())
        return self._random

    def uuid4(self) -> uuid.UUID:
        """A UUID made of :attr:`random`."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def start_timer(self, delay_ms: int, summary: str) -> int:
        """Ask for a timer (see :class:`~orchestrator.workflow.loop.Host`)."""
        self._last_timer += 1
        number = self._last_timer
        self._actions[StartTimer, number] = StartTimer(timer_id=number, delay_ms=delay_ms, summary=summary)
        return number

    def cancel_timer(self, timer_id: int) -> None:
        """Cancel a timer; one that was started in this activation never was."""
        if self._actions.pop((StartTimer, timer_id), None) is None:
            self._actions[CancelTimer, timer_id] = CancelTimer(timer_id=timer_id)

    def publish(self, action: PublishEvent) -> None:
        """Ask for an event to be published."""
        self._loop.guard("publishing an event")
        self._published += 1
        self._actions[PublishEvent, self._published] = action

    def add_condition(self, test: Callable[[], bool]) -> asyncio.Future[None]:
        """A future that is done after the first drain in which ``test`` was true."""
        self._loop.guard("waiting")
        future = self._loop.create_future()
        self._conditions[future] = (test, contextvars.copy_context())
        return future

    def remove_condition(self, future: asyncio.Future[None]) -> None:
        """Test it no longer."""
        self._conditions.pop(future, None)

    def add_tag(self, tag: str) -> None:
        """Put a word on the event that closes the run; twice is once."""
        self._loop.guard("adding a tag")
        if not isinstance(tag, str) or not 0 < len(tag) <= MAX_TAG_CHARS or not tag.isprintable():
            raise UsageError(f"the tag is {tag!r}; give 1 to {MAX_TAG_CHARS} printable characters")
        if tag not in self._tags:
            if len(self._tags) == MAX_TAGS:
                raise UsageError(f"the run has {MAX_TAGS} tags already; {tag!r} would be one too many")
            self._tags = (*self._tags, str.__str__(tag))

    def set_signal_handler(self, name: str, fn: Callable[..., Any] | None) -> None:
        """Set or remove the handler of a signal; a new one gets what came before it, in order."""
        self._loop.guard("setting a signal handler")
        for fact in self.signals.set_handler(name, fn):
            self._apply_signaled(fact)

    def set_query_handler(self, name: str, fn: Callable[..., Any] | None) -> None:
        """Set or remove the handler of a query."""
        self._loop.guard("setting a query handler")
        self._queries = with_handler(self._queries, name, fn)

    @property
    def silent(self) -> bool:
        """Whether nothing is to be logged: it was logged before, or does not count."""
        return self.replaying or self._loop.mode is Mode.EVICTED

    def callback_failed(self, error: BaseException) -> None:
        """A callback on the loop raised (see :class:`~orchestrator.workflow.loop.Host`)."""
        self._end(error)

    def report(self, message: str, error: BaseException | None) -> None:
        """Log what no code waits for (see :class:`~orchestrator.workflow.loop.Host`)."""
        if not self.replaying:
            with outside():
                ids = {"workflow_id": self.workflow_id, "run_id": self.run_id}
                _logger.warning("%s", message, exc_info=error, extra=ids)

    # --- running ---

    def _check_usable(self) -> None:
        if self._unusable:
            raise RuntimeError(
                f"the instance of {self.workflow_id!r} cannot be used: {self._unusable}; "
                "close it and make another from history"
            )

    def _start(self) -> None:
        """Make the object and the main task. Signals that came with the start run first, see §6."""
        context = contextvars.Context()
        handler = self.definition.run
        try:
            args = self._decode(handler, self.started.input)
        except (PayloadError, DefinitionError) as error:
            message = f"the input of workflow {self.definition.name!r} cannot be used: {error}"
            self._end(ApplicationError(message, type="InvalidInput", non_retryable=True))
            self._loop.halt()
            return
        try:
            context.run(self._make_object, args)
        except (Evicted, KeyboardInterrupt):
            raise
        except BaseException as error:
            self._end(error)
            self._loop.halt()
            return
        self._main = self._loop.create_task(self._run_main(args), name="run", context=context)
        if self.cancel_reason is not None:
            self._loop.call_soon(self._main.cancel)

    def _make_object(self, args: Sequence[Any]) -> None:
        cls = self.definition.cls
        self._object = cls(*args) if self.definition.init_takes_input else cls()

    def _run_until_idle(self) -> None:
        loop = self._loop
        loop.run_ready()
        while self._conditions:
            for future, (test, context) in list(self._conditions.items()):
                if future.done():
                    continue
                try:
                    if context.run(test):
                        future.set_result(None)
                except Exception as error:
                    future.set_exception(error)
                except (Evicted, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._end(error)
                    return
            if not loop.has_ready():
                return
            loop.run_ready()

    async def _run_main(self, args: Sequence[Any]) -> None:
        try:
            result = await self.definition.run.fn(self._object, *args)
            payload = None if result is None else self.converter.to_payload(result)
        except (Evicted, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit) and self._loop.mode is Mode.EVICTED:
                raise  # the instance is closed, and the coroutine with it
            self._end(error)
        else:
            self._finish(CompleteWorkflow(result=payload, tags=self._tags))

    async def _run_signal(self, handler: Handler, args: Sequence[Any]) -> None:
        self.signals.begin(handler.name)
        try:
            result = self._bound(handler)(*args)
            if asyncio.iscoroutine(result):
                await result
        except (Evicted, KeyboardInterrupt):
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit) and self._loop.mode is Mode.EVICTED:
                raise  # the instance is closed, and the coroutine with it
            self._end(error)
        finally:
            self.signals.end(handler.name)

    # --- the end ---

    def _end(self, error: BaseException) -> None:
        """Code ended by an exception: that is a cancellation, a declared failure, or a bug."""
        if self.cancel_reason is not None and is_cancellation(error):
            self._finish(AcceptCancel(tags=self._tags))
        elif is_declared(error, self.definition.failure_exception_types):
            failure = failures.to_failure(error, self.converter)
            self._finish(FailWorkflow(failure=failure, tags=self._tags))
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """The code cannot go on. The first error tells why; what follows from it does not count."""
        if self._error is None:
            self._error = error
        self._loop.halt()

    def _finish(self, terminal: CompleteWorkflow | FailWorkflow | AcceptCancel) -> None:
        """The run ends; the first to say so decides. What else is ready still runs."""
        if self._terminal is None:
            self._terminal = terminal

    def _warn_of_unfinished(self) -> None:
        names = ", ".join(
            f"{name!r}" if count == 1 else f"{name!r} ({count} times)"
            for name, count in self.signals.running.items()
        )
        self.report(
            f"workflow {self.definition.name!r} ended while handlers of signals still ran: {names}; what "
            "they had left to do is lost. Wait for them at the end of run(): "
            "await workflow.wait_condition(workflow.all_handlers_finished)",
            None,
        )

    # --- facts ---

    def _decode(self, handler: Handler, input: Payloads) -> list[Any]:
        return self.converter.from_payloads(input, handler.hints_for(len(input)))

    def _bound(self, handler: Handler) -> Callable[..., Any]:
        if not handler.has_self:
            return handler.fn
        bound: Callable[..., Any] = handler.fn.__get__(self._object)
        return bound

    def _apply_started(self, fact: WorkflowStarted) -> None:
        """Nothing: the instance was made of it, and the main task starts after all facts are applied."""

    def _apply_signaled(self, fact: WorkflowSignaled) -> None:
        handler = self.signals.handler_of(fact)
        if handler is None:
            return
        try:
            args = self._decode(handler, fact.input)
        except (PayloadError, DefinitionError) as error:
            self.report(f"signal {fact.signal_name!r} was dropped: {error}", None)
            return
        self._loop.create_task(
            self._run_signal(handler, args), name=f"signal: {fact.signal_name}", context=contextvars.Context()
        )

    def _apply_cancel_requested(self, fact: WorkflowCancelRequested) -> None:
        self.cancel_reason = fact.reason
        if self._main is not None:
            self._loop.call_soon(self._main.cancel)

    def _apply_timer_fired(self, fact: TimerFired) -> None:
        if fact.timer_id > self._last_timer:
            raise never_asked("timer", fact.timer_id, self._last_timer)
        self._loop.fire(fact.timer_id)


_APPLY: Final[dict[type[EventBase], Callable[[Instance, Any], None]]] = {
    WorkflowStarted: Instance._apply_started,
    WorkflowSignaled: Instance._apply_signaled,
    WorkflowCancelRequested: Instance._apply_cancel_requested,
    ActivityCompleted: lambda instance, fact: instance.activities.on_completed(fact),
    ActivityFailed: lambda instance, fact: instance.activities.on_failed(fact),
    ActivityTimedOut: lambda instance, fact: instance.activities.on_failed(fact),
    ActivityCanceled: lambda instance, fact: instance.activities.on_canceled(fact),
    TimerFired: Instance._apply_timer_fired,
}


def current() -> Instance | None:
    """The instance whose code runs on this thread, or None: it is the host of the running loop."""
    loop = asyncio._get_running_loop()
    return cast(Instance, loop.host) if type(loop) is WorkflowLoop else None
