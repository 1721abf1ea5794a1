"""Spans of OpenTelemetry: a client's call, the run that it starts, and the attempts of the run's activities.

::

    StartWorkflow:Order                 client
    └─ RunWorkflow:Order                coordinator; from start to close, told when it is closed
       ├─ RunActivity:charge            worker; attempt 1, failed
       └─ RunActivity:charge            worker; attempt 2; what your activity traces is below it

The span of a run is told of once, at its close, by whoever owns its partition then; meanwhile its children,
in other processes, must know its id. So the ids follow from the run id and are written into the run's headers
at its start, together with the sampler's decision. Replays make no spans: they have nothing to do with this.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import wraps
from hashlib import sha256
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestrator.engine.execution import close_failure
from orchestrator.engine.state import RunState
from orchestrator.protocol import commands as c
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.protocol.traces import PARENT_SPAN, trace_context
from orchestrator.protocol.values import Failure, WorkflowStatus
from orchestrator.telemetry import traces

_log = logging.getLogger(__name__)
_w3c = TraceContextTextMapPropagator()

_CALLS: dict[type[c.CommandBase], str] = {
    c.StartWorkflow: "workflow_type",
    c.SignalWorkflow: "signal_name",
    c.QueryWorkflow: "query_name",
    c.CancelWorkflow: "",
    c.TerminateWorkflow: "",
}
"""The commands of clients that are worth a span, and what its name says of each. A wait is none."""

_FAILED = (WorkflowStatus.FAILED, WorkflowStatus.TIMED_OUT, WorkflowStatus.TERMINATED)
"""A run that was asked to cancel itself, and did so, has done what it should."""

_OUTCOMES: dict[type[Any], str] = {
    c.CompleteActivity: "completed",
    c.FailActivity: "failed",
    c.ReportActivityCanceled: "canceled",
    type(None): "dropped",
}

_CHOSEN: ContextVar[tuple[int, int]] = ContextVar("chosen trace and span id", default=(0, 0))
"""The ids of the span that is being started; 0 is none in particular."""


def span_id_of(*names: object) -> int:
    """The id of the span of a run, or of one of its attempts (run id, activity, attempt)."""
    return _number("span", names, 8)


def trace_id_of(run_id: str) -> int:
    """The id of the trace of a run that nobody traced who started it."""
    return _number("trace", (run_id,), 16)


def _number(what: str, names: tuple[object, ...], count_bytes: int) -> int:
    digest = sha256("/".join(map(str, (what, *names))).encode()).digest()
    return int.from_bytes(digest[:count_bytes], "big") or 1


class _Ids:
    """An SDK's generator of ids, but for spans whose ids are chosen. Only our own tracer has it."""

    def __init__(self, others: Any) -> None:
        self._others = others

    def generate_trace_id(self) -> int:
        return _CHOSEN.get()[0] or int(self._others.generate_trace_id())

    def generate_span_id(self) -> int:
        return _CHOSEN.get()[1] or int(self._others.generate_span_id())

    def is_trace_id_random(self) -> bool:
        """A hash is as good as chance for samplers that look at the bits."""
        return True


P = ParamSpec("P")
R = TypeVar("R")


def _or_untraced(
    tell: Callable[Concatenate[Spans, P], R],
) -> Callable[Concatenate[Spans, P], R]:
    """A span is worth no workflow: whatever an SDK's plug-in raises, the work goes on without a span."""
    instead: Callable[..., R] = getattr(traces.Untraced(), tell.__name__)

    @wraps(tell)
    def guarded(self: Spans, /, *about: P.args, **more: P.kwargs) -> R:
        try:
            return tell(self, *about, **more)
        except Exception:
            _log.exception("a span could not be made")
            return instead(*about, **more)

    return guarded


class Spans:
    """Implements :class:`orchestrator.telemetry.traces.Traces`."""

    def __init__(self, tracer: Tracer) -> None:
        """Tell ``tracer``. One that is not OpenTelemetry's SDK may not let us choose ids: then runs have no
        span, and their attempts are children of who started them.
        """
        self._tracer = tracer
        chooses: Any = tracer
        self._sampler: Any = getattr(chooses, "sampler", None)
        others = getattr(chooses, "id_generator", None)
        self._chooses = others is not None and self._sampler is not None
        if not self._chooses:
            _log.warning("runs get no spans: %r is not the tracer of OpenTelemetry's SDK", chooses)
        elif not isinstance(others, _Ids):
            chooses.id_generator = _Ids(others)

    # --- clients ---

    @_or_untraced
    def call(self, command: c.Command) -> traces.Call:
        """A child of what is current where it is made, or else of the HTTP request that is answered."""
        named_by = _CALLS.get(type(command))
        if named_by is None:
            return traces.Untraced().call(command)
        assert isinstance(command, c.WorkflowCommand)
        kind = type(command).__name__
        name = f"{kind}:{getattr(command, named_by)}" if named_by else kind
        inside = get_current_span().get_span_context().is_valid
        context = None if inside else _w3c.extract(traces.INCOMING.get())
        about = {"orchestrator.workflow_id": command.workflow_id}
        if command.run_id:
            about["orchestrator.run_id"] = command.run_id
        return _InUse(self._tracer.start_span(name, context=context, kind=SpanKind.CLIENT, attributes=about))

    # --- coordinators ---

    @_or_untraced
    def run_headers(self, command: c.StartWorkflow, run_id: str) -> dict[str, str]:
        """The run's own span, and whose child it is. Deciding anew, for another run id, makes another."""
        given = trace_context(command.headers)
        if not self._chooses:
            return given
        context = _w3c.extract(given)
        parent = get_current_span(context).get_span_context()
        trace_id = parent.trace_id if parent.is_valid else trace_id_of(run_id)
        sampled = self._sampler.should_sample(
            context,
            trace_id,
            f"RunWorkflow:{command.workflow_type}",
            SpanKind.SERVER,
            _about_run(command.workflow_id, run_id, command.workflow_type),
            (),
        )
        flags = TraceFlags.SAMPLED if sampled.decision.is_sampled() else TraceFlags.DEFAULT
        own = SpanContext(trace_id, span_id_of(run_id), False, TraceFlags(flags), sampled.trace_state)
        headers = {PARENT_SPAN: f"{parent.span_id:016x}"} if parent.is_valid else {}
        _w3c.inject(headers, set_span_in_context(NonRecordingSpan(own), Context()))
        return headers

    @_or_untraced
    def run_closed(self, state: RunState) -> None:
        """Tell of the run, from its start to its close, if its start promised that."""
        own = get_current_span(_w3c.extract(state.headers)).get_span_context()
        if not self._chooses or own.span_id != span_id_of(state.run_id) or not own.trace_flags.sampled:
            return
        about = _about_run(state.workflow_id, state.run_id, state.workflow_type)
        with _chosen(own.trace_id, own.span_id):
            span = self._tracer.start_span(
                f"RunWorkflow:{state.workflow_type}",
                context=_parent_of_run(state.headers, own),
                kind=SpanKind.SERVER,
                attributes=about | {"orchestrator.status": state.status.value},
                start_time=state.start_time_ms * 1_000_000,
            )
        if state.status in _FAILED:
            _fail(span, close_failure(state.close), state.close_time_ms)
        span.end(state.close_time_ms * 1_000_000)

    # --- workers ---

    @_or_untraced
    def attempt(self, task: ActivityTask) -> traces.Attempt:
        """A child of the run's span, and current while the activity runs."""
        headers = trace_context(task.headers)
        about = _about_run(task.workflow_id, task.run_id, task.workflow_type) | {
            "orchestrator.activity_type": task.activity_type,
            "orchestrator.activity_id": task.activity_id,
            "orchestrator.attempt": task.attempt,
            "orchestrator.task_queue": task.task_queue,
        }
        with _chosen(trace_id_of(task.run_id), span_id_of(task.run_id, task.activity_id, task.attempt)):
            span = self._tracer.start_span(
                f"RunActivity:{task.activity_type}",
                context=_w3c.extract(headers),
                kind=SpanKind.SERVER,
                attributes=about,
            )
        return _InUse(span)


class _InUse:
    """A span that is current in a ``with`` block, and ends with it: a client's call, or an attempt.

    An exception there is a failure of the call. What an activity raises comes as a report instead.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self._used: AbstractContextManager[Span] = use_span(span, end_on_exit=True)
        self.headers: dict[str, str] = {}
        _w3c.inject(self.headers, set_span_in_context(span, Context()))

    def __enter__(self) -> Self:
        self._used.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._used.__exit__(kind, error, trace)
        except Exception:  # none of the block's: that one goes on by itself
            _log.exception("a span could not be ended")

    def answered(self, run_id: str) -> None:
        """The engine has said yes."""
        if run_id:
            self._span.set_attribute("orchestrator.run_id", run_id)

    def reported(self, report: c.Command | None) -> None:
        """The attempt has ended."""
        self._span.set_attribute("orchestrator.status", _OUTCOMES[type(report)])
        if isinstance(report, c.FailActivity):
            _fail(self._span, report.failure)


@contextmanager
def _chosen(trace_id: int, span_id: int) -> Iterator[None]:
    token = _CHOSEN.set((trace_id, span_id))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def _about_run(workflow_id: str, run_id: str, workflow_type: str) -> dict[str, str | int]:
    return {
        "orchestrator.workflow_id": workflow_id,
        "orchestrator.run_id": run_id,
        "orchestrator.workflow_type": workflow_type,
    }


def _parent_of_run(headers: Mapping[str, str], own: SpanContext) -> Context:
    """Whose child the span of a run is: nobody's, if nobody traced who started it."""
    if PARENT_SPAN not in headers:
        return Context()
    parent = SpanContext(own.trace_id, int(headers[PARENT_SPAN], 16), True, own.trace_flags, own.trace_state)
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _fail(span: Span, failure: Failure | None, time_ms: int | None = None) -> None:
    """A failure as OpenTelemetry has exceptions, with what caused it."""
    if failure is None:
        span.set_status(Status(StatusCode.ERROR))
        return
    span.set_status(Status(StatusCode.ERROR, f"{failure.type or failure.kind}: {failure.message}"))
    about = {
        "exception.type": failure.type or failure.kind.value,
        "exception.message": failure.message,
        "exception.stacktrace": _trace_of(failure),
    }
    span.add_event("exception", about, None if time_ms is None else time_ms * 1_000_000)


def _trace_of(failure: Failure) -> str:
    """The stacks of a failure and its causes, the root cause first, as Python prints them."""
    chain = [failure]
    while (cause := chain[-1].cause) is not None:
        chain.append(cause)
    told = (f"{each.stack}{each.type or each.kind.value}: {each.message}" for each in reversed(chain))
    return "\n\nThe above failure caused the following one:\n\n".join(told)
