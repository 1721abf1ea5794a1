"""Each in a process of its own: a tracer provider is for a whole process, and for good."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
provider = TracerProvider()
trace.set_tracer_provider(provider)
"""
FOUND = """
import sys
from orchestrator.telemetry.tracing import find_traces
print(type(find_traces()).__name__, "opentelemetry.trace" in sys.modules)
"""
ENDS = """
from orchestrator.cli.process import end_process
trace.get_tracer("test").start_span("the last one").end()
end_process()
"""
HANGS = """
import threading
class Hangs(SpanExporter):
    def export(self, spans):
        threading.Event().wait()
    def force_flush(self, timeout_millis=0):
        threading.Event().wait()
provider.add_span_processor(BatchSpanProcessor(Hangs()))
"""


def output(code: str, **environment: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=30, check=True, env=environment or None
    )
    return done.stdout


@pytest.mark.parametrize(
    ("before", "found"),
    [
        ("", "Untraced False"),
        ("import opentelemetry.trace", "Untraced True"),
        (PROVIDER, "Spans True"),
        (
            "from opentelemetry import trace\ntrace.set_tracer_provider(trace.NoOpTracerProvider())",
            "Untraced True",
        ),
    ],
    ids=["not imported", "no provider", "a provider", "a provider of nothing"],
)
def test_who_has_a_provider_makes_spans_and_nobody_else_imports_anything(before: str, found: str) -> None:
    assert output(before + FOUND).strip() == found


def test_a_switched_off_sdk_makes_no_spans() -> None:
    assert output(PROVIDER + FOUND, OTEL_SDK_DISABLED="true").strip() == "Untraced True"


def test_the_last_spans_leave_before_a_role_ends() -> None:
    batch = "provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))"
    assert "the last one" in output(PROVIDER + batch + ENDS)


def test_an_exporter_that_hangs_holds_no_role_up() -> None:
    assert output(PROVIDER + HANGS + ENDS) == ""


def test_a_role_that_does_not_trace_ends_as_well() -> None:
    assert output("from orchestrator.cli.process import end_process\nend_process()") == ""
