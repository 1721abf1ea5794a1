from __future__ import annotations

import logging
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import NoOpTracer, SpanKind, StatusCode, Tracer, get_current_span

from orchestrator.engine.state import RunState
from orchestrator.errors import WorkflowAlreadyStarted
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.values import Failure, FailureKind, WorkflowStatus
from orchestrator.telemetry.spans import Spans, span_id_of, trace_id_of
from orchestrator.telemetry.traces import INCOMING
from tests.unit.worker.tasks import activity_task

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=b"}
BOOM = Failure(
    kind=FailureKind.APPLICATION,
    type="BankDown",
    message="no answer",
    stack="File pay.py\n",
    cause=Failure(kind=FailureKind.APPLICATION, type="OSError", message="refused"),
)


class Seen:
    """Spans, and what makes them."""

    def __init__(self, *, sampler: Sampler | None = None, processor: SpanProcessor | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler)
        provider.add_span_processor(processor or SimpleSpanProcessor(self.exporter))
        self.tracer: Tracer = provider.get_tracer("test")
        self.spans = Spans(self.tracer)

    @property
    def found(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    @property
    def only(self) -> ReadableSpan:
        (found,) = self.found
        return found


@pytest.fixture
def seen() -> Seen:
    return Seen()


def start(**fields: Any) -> c.StartWorkflow:
    return c.StartWorkflow(**({"workflow_id": "o-1", "workflow_type": "Order"} | fields))


def closed(headers: dict[str, str], close: e.Event, status: WorkflowStatus, run_id: str = "r1") -> RunState:
    return RunState(
        workflow_id="o-1",
        run_id=run_id,
        workflow_type="Order",
        status=status,
        start_time_ms=1_000,
        time_ms=5_000,
        close_time_ms=5_000,
        close=close,
        headers=headers,
    )


DONE = (e.WorkflowCompleted(), WorkflowStatus.COMPLETED)


def parent_id(span: ReadableSpan) -> str:
    return f"{span.parent.span_id:016x}" if span.parent is not None else ""


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (start(), "StartWorkflow:Order"),
        (c.SignalWorkflow(workflow_id="o-1", signal_name="approve"), "SignalWorkflow:approve"),
        (c.QueryWorkflow(workflow_id="o-1", query_name="status"), "QueryWorkflow:status"),
        (c.CancelWorkflow(workflow_id="o-1"), "CancelWorkflow"),
        (c.TerminateWorkflow(workflow_id="o-1"), "TerminateWorkflow"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_a_call_is_a_span_whose_context_its_command_carries(
    seen: Seen, command: c.Command, name: str
) -> None:
    with seen.spans.call(command) as call:
        assert get_current_span().is_recording()
        call.answered("r1")
    span = seen.only
    assert (span.name, span.kind, span.status.status_code) == (name, SpanKind.CLIENT, StatusCode.UNSET)
    assert span.attributes == {"orchestrator.workflow_id": "o-1", "orchestrator.run_id": "r1"}
    assert call.headers == {
        "traceparent": f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-03"  # sampled, random
    }


def test_a_wait_for_a_result_is_no_span(seen: Seen) -> None:
    with seen.spans.call(c.AwaitResult(workflow_id="o-1")) as call:
        assert call.headers == {}
    assert not seen.found


def test_a_refused_call_has_failed_and_says_so(seen: Seen) -> None:
    with pytest.raises(WorkflowAlreadyStarted), seen.spans.call(start()):
        raise WorkflowAlreadyStarted("in use")
    assert seen.only.status.status_code is StatusCode.ERROR
    assert seen.only.events[0].name == "exception"


def test_a_call_belongs_to_what_is_current_or_else_to_the_request_that_is_answered(seen: Seen) -> None:
    token = INCOMING.set(PARENT)
    try:
        with seen.spans.call(start()) as call:
            assert call.headers["tracestate"] == "a=b"
        assert parent_id(seen.only) == SPAN
        with seen.tracer.start_as_current_span("mine") as mine, seen.spans.call(start()):
            pass
        assert parent_id(seen.found[1]) == f"{mine.get_span_context().span_id:016x}"
    finally:
        INCOMING.reset(token)


def test_a_run_is_one_span_from_its_start_to_its_close_below_who_started_it(seen: Seen) -> None:
    headers = seen.spans.run_headers(start(headers=PARENT), "r1")
    assert headers == {
        "traceparent": f"00-{TRACE}-{span_id_of('r1'):016x}-01",
        "tracestate": "a=b",
        "parent-span": SPAN,
    }
    assert not seen.found, "a span is told of when it ends"
    Seen().spans.run_closed(closed(headers, *DONE))  # any coordinator can
    seen.spans.run_closed(closed(headers, *DONE))
    span = seen.only
    assert (span.name, span.kind) == ("RunWorkflow:Order", SpanKind.SERVER)
    assert (span.start_time, span.end_time) == (1_000_000_000, 5_000_000_000)
    assert (f"{span.context.trace_id:032x}", span.context.span_id) == (TRACE, span_id_of("r1"))
    assert parent_id(span) == SPAN
    assert span.attributes == {
        "orchestrator.workflow_id": "o-1",
        "orchestrator.run_id": "r1",
        "orchestrator.workflow_type": "Order",
        "orchestrator.status": "Completed",
    }
    assert span.status.status_code is StatusCode.UNSET


def test_a_run_that_nobody_traced_begins_a_trace_that_its_id_tells(seen: Seen) -> None:
    headers = seen.spans.run_headers(start(), "r1")
    assert headers == {"traceparent": f"00-{trace_id_of('r1'):032x}-{span_id_of('r1'):016x}-01"}
    seen.spans.run_closed(closed(headers, *DONE))
    assert (seen.only.context.trace_id, seen.only.parent) == (trace_id_of("r1"), None)


def test_ids_chosen_for_one_span_are_not_those_of_the_next(seen: Seen) -> None:
    seen.spans.run_closed(closed(seen.spans.run_headers(start(), "r1"), *DONE))
    seen.tracer.start_span("mine").end()
    run, mine = seen.found
    assert run.context.trace_id != mine.context.trace_id
    assert run.context.span_id != mine.context.span_id


@pytest.mark.parametrize(
    ("close", "status", "said"),
    [
        (e.WorkflowFailed(failure=BOOM), WorkflowStatus.FAILED, "BankDown: no answer"),
        (e.WorkflowTimedOut(failure=BOOM), WorkflowStatus.TIMED_OUT, "BankDown: no answer"),
        (e.WorkflowTerminated(reason="wrong"), WorkflowStatus.TERMINATED, "terminated: wrong"),
        (e.WorkflowCanceled(), WorkflowStatus.CANCELED, None),
    ],
)
def test_how_a_run_ended(seen: Seen, close: e.Event, status: WorkflowStatus, said: str | None) -> None:
    seen.spans.run_closed(closed(seen.spans.run_headers(start(), "r1"), close, status))
    assert seen.only.status.description == said
    assert (seen.only.status.status_code is StatusCode.ERROR) is (said is not None)
    assert [event.timestamp for event in seen.only.events] == ([5_000_000_000] if said else [])


def test_a_failure_is_an_exception_with_its_causes(seen: Seen) -> None:
    failed = closed(
        seen.spans.run_headers(start(), "r1"), e.WorkflowFailed(failure=BOOM), WorkflowStatus.FAILED
    )
    seen.spans.run_closed(failed)
    (event,) = seen.only.events
    assert event.attributes == {
        "exception.type": "BankDown",
        "exception.message": "no answer",
        "exception.stacktrace": (
            "OSError: refused\n\nThe above failure caused the following one:\n\n"
            "File pay.py\nBankDown: no answer"
        ),
    }


@pytest.mark.parametrize("headers", [{}, PARENT], ids=["no trace", "a trace of others"])
def test_a_run_whose_start_promised_no_span_gets_none(seen: Seen, headers: dict[str, str]) -> None:
    seen.spans.run_closed(closed(headers, *DONE))
    assert not seen.found


@pytest.mark.parametrize("given", [{}, PARENT | {"traceparent": f"00-{TRACE}-{SPAN}-00"}])
def test_the_sampler_decides_once_for_a_run_and_its_attempts(given: dict[str, str]) -> None:
    seen = Seen(sampler=ParentBased(ALWAYS_OFF))
    headers = seen.spans.run_headers(start(headers=given), "r1")
    assert headers["traceparent"].endswith("-00")
    everything = Seen()  # whatever the others are told to sample
    everything.spans.run_closed(closed(headers, *DONE))
    with everything.spans.attempt(activity_task(headers=headers)):
        assert not get_current_span().is_recording()
    assert not everything.found


def test_a_share_of_runs_is_sampled_as_a_whole() -> None:
    seen = Seen(sampler=ParentBased(TraceIdRatioBased(0.5)))
    for number in range(200):
        run_id = f"r{number}"
        headers = seen.spans.run_headers(start(), run_id)
        with seen.spans.attempt(activity_task(run_id=run_id, headers=headers)):
            pass
        seen.spans.run_closed(closed(headers, *DONE, run_id=run_id))
    names = [span.name for span in seen.found]
    assert names.count("RunWorkflow:Order") == names.count("RunActivity:echo")
    assert 60 < names.count("RunWorkflow:Order") < 140


def test_an_attempt_is_current_while_it_runs_below_its_run(seen: Seen) -> None:
    headers = seen.spans.run_headers(start(headers=PARENT), "r1")
    task = activity_task(run_id="r1", activity_id=3, attempt=2, headers=headers)
    with seen.spans.attempt(task) as attempt:
        seen.tracer.start_span("charge card").end()
        attempt.reported(
            c.CompleteActivity(workflow_id="o-1", activity_id=3, attempt=2, dispatch=1, worker="w")
        )
    users, span = seen.found
    assert (span.name, span.kind) == ("RunActivity:echo", SpanKind.SERVER)
    assert parent_id(span) == f"{span_id_of('r1'):016x}"
    assert users.parent == span.context
    assert (f"{span.context.trace_id:032x}", span.context.span_id) == (TRACE, span_id_of("r1", 3, 2))
    assert span.attributes == {
        "orchestrator.workflow_id": "order-1",
        "orchestrator.run_id": "r1",
        "orchestrator.workflow_type": "Order",
        "orchestrator.activity_type": "echo",
        "orchestrator.activity_id": 3,
        "orchestrator.attempt": 2,
        "orchestrator.task_queue": "default",
        "orchestrator.status": "completed",
    }


def test_attempts_of_a_run_that_nobody_traced_share_a_trace(seen: Seen) -> None:
    for attempt in (1, 2):
        with seen.spans.attempt(activity_task(run_id="r1", attempt=attempt)):
            pass
    assert {span.context.trace_id for span in seen.found} == {trace_id_of("r1")}
    assert len({span.context.span_id for span in seen.found}) == 2


def report(kind: type[Any], **fields: Any) -> Any:
    return kind(workflow_id="o-1", activity_id=1, attempt=1, dispatch=1, worker="w", **fields)


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        (report(c.FailActivity, failure=BOOM), "failed", StatusCode.ERROR),
        (report(c.ReportActivityCanceled), "canceled", StatusCode.UNSET),
        (None, "dropped", StatusCode.UNSET),
    ],
)
def test_how_an_attempt_ended(seen: Seen, told: Any, status: str, code: StatusCode) -> None:
    with seen.spans.attempt(activity_task()) as attempt:
        attempt.reported(told)
    assert seen.only.attributes is not None
    assert seen.only.attributes["orchestrator.status"] == status
    assert seen.only.status.status_code is code
    assert len(seen.only.events) == (code is StatusCode.ERROR)


class Broken(SpanProcessor):
    def __init__(self, where: str) -> None:
        self.where = where

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.where == "start":
            raise RuntimeError("broken plug-in")

    def on_end(self, span: ReadableSpan) -> None:
        if self.where == "end":
            raise RuntimeError("broken plug-in")


@pytest.mark.parametrize("where", ["start", "end"])
def test_whatever_a_plug_in_raises_the_work_goes_on(where: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "orchestrator.telemetry.spans")
    seen = Seen(processor=Broken(where))
    headers = seen.spans.run_headers(start(), "r1")
    seen.spans.run_closed(closed(headers, *DONE))
    with seen.spans.call(start()) as call:
        call.answered("r1")
    with seen.spans.attempt(activity_task()) as attempt:
        attempt.reported(None)
    with pytest.raises(ValueError, match="mine"), seen.spans.attempt(activity_task()):
        raise ValueError("mine")


def test_a_tracer_whose_ids_cannot_be_chosen_leaves_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    spans = Spans(NoOpTracer())
    assert "runs get no spans" in caplog.text
    assert spans.run_headers(start(headers=PARENT), "r1") == PARENT
    spans.run_closed(closed({"traceparent": f"00-{TRACE}-{span_id_of('r1'):016x}-01"}, *DONE))
