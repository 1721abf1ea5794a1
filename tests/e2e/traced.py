"""A user's program that traces: starts a workflow, dies in the middle, goes on in another process.

    python -m tests.e2e.traced FOLDER SPANS whole|begin|end|look

Each finished span is a line of JSON in the file SPANS.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

import orchestrator
from orchestrator import Client, activity, workflow
from orchestrator.workflow import RetryPolicy

SOON = RetryPolicy(initial_interval=0.01)


@activity.defn
async def charge() -> str:
    with trace.get_tracer("shop").start_as_current_span("call the bank"):
        if activity.info().attempt == 1:
            raise ConnectionError("the bank does not answer")
        return "charged"


@activity.defn
def ship() -> str:
    with trace.get_tracer("shop").start_as_current_span("print the label"):
        return "shipped"


@workflow.defn
class Order:
    def __init__(self) -> None:
        self.approved = False

    @workflow.run
    async def run(self) -> list[str]:
        charged = await workflow.execute_activity(charge, start_to_close_timeout=30, retry_policy=SOON)
        await workflow.wait_condition(lambda: self.approved)
        return [charged, await workflow.execute_activity(ship, start_to_close_timeout=30)]

    @workflow.signal
    def approve(self) -> None:
        self.approved = True


async def begin(client: Client) -> None:
    """Start, and be gone once the first activity is done."""
    handle = await client.start_workflow(Order.run, id="order-17")
    while (await handle.describe()).pending_activities:  # noqa: ASYNC110  # nobody tells clients of it
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


async def end(client: Client) -> None:
    """Let it go on, to its end."""
    handle = client.get_workflow_handle("order-17")
    await handle.signal(Order.approve)
    assert await handle.result() == ["charged", "shipped"]


async def whole(client: Client) -> None:
    """All of it in one process."""
    await client.start_workflow(Order.run, id="order-17")
    await end(client)


async def look(client: Client) -> None:
    """All of it was done before."""
    assert await client.get_workflow_handle("order-17").result() == ["charged", "shipped"]


WHAT = {"whole": whole, "begin": begin, "end": end, "look": look}


async def main(folder: str, spans: str, what: str) -> None:
    """Set OpenTelemetry up, then do it."""
    with open(spans, "a") as out:  # noqa: ASYNC230
        provider = TracerProvider()
        exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        async with orchestrator.embedded(folder, workflows=[Order], activities=[charge, ship]) as client:
            await WHAT[what](client)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
