"""A workflow that collects what it is told, before and after deploys; and what its history says of blocks."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator import workflow
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e

from .kit import TO_ME, Bench


@workflow.defn(name="Order")
class Order:
    """Waits for ``finish``; collects what it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.done = False

    @workflow.run
    async def run(self) -> list[str]:
        self.seen.append("run")
        await workflow.wait_condition(lambda: self.done)
        return self.seen

    @workflow.signal
    def note(self, word: str) -> None:
        self.seen.append(word)

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.signal
    def stumble(self, why: str = "a bug") -> None:
        raise RuntimeError(why)

    @workflow.query
    def all(self) -> list[str]:
        return self.seen


@workflow.defn(name="Order")
class FixedOrder(Order):
    """The same after a deploy."""

    @workflow.run
    async def run(self) -> list[str]:
        return await super().run()

    @workflow.signal
    def stumble(self, why: str = "a bug") -> None:
        self.seen.append(f"fixed {why}")


@workflow.defn(name="Order")
class OtherOrder(Order):
    """A deploy that open runs cannot follow."""

    @workflow.run
    async def run(self) -> list[str]:
        await asyncio.sleep(60)
        return await super().run()


def terminate(request_id: str = "terminate", **fields: Any) -> c.TerminateWorkflow:
    return c.TerminateWorkflow(workflow_id="a", request_id=request_id, reply_to=TO_ME, **fields)


# --------------------------------------------------------------------------------- what one turn holds


def blocks(bench: Bench) -> list[str]:
    """Why the run was blocked, each time that it was said."""
    return [
        event.failure.message
        for made in bench.turns
        for event in made.events
        if isinstance(event, e.WorkflowBlocked)
    ]
