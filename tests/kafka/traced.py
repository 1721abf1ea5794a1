"""What coordinators and workers run that make spans; given to them as a module.

Each finished span is a line of JSON in the file ``$TEST_SPANS`` of the process.
"""

from __future__ import annotations

import os

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from orchestrator import workflow
from tests.e2e.traced import SOON, charge

__all__ = ["Telling", "charge"]

SPANS = "TEST_SPANS"

if SPANS in os.environ:
    exporter = ConsoleSpanExporter(
        out=open(os.environ[SPANS], "a"),  # noqa: SIM115  # until the process ends
        formatter=lambda span: span.to_json(indent=None) + "\n",
    )
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


@workflow.defn
class Telling:
    """Charges, waits until it may go on, and tells others of it."""

    def __init__(self) -> None:
        self.approved = False

    @workflow.run
    async def run(self, topic: str) -> str:
        charged: str = await workflow.execute_activity(charge, start_to_close_timeout=60, retry_policy=SOON)
        await workflow.wait_condition(lambda: self.approved)
        workflow.publish(topic, charged)
        return charged

    @workflow.signal
    def approve(self) -> None:
        self.approved = True
