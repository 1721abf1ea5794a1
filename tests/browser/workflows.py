"""Workflows beside those of the demo, for states that it does not come into."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator import activity, workflow
from orchestrator.errors import ApplicationError


@activity.defn
async def call_carrier(parcel: str) -> str:
    """Fails on the line that it is on until it is let through."""
    raise ApplicationError(f"no line to the carrier\nfor parcel {parcel}", type="CarrierUnreachable")


@workflow.defn
class Parcel:
    """Is retried for ever."""

    @workflow.run
    async def run(self, parcel: str) -> str:
        retries = workflow.RetryPolicy(initial_interval=0.05, maximum_interval=60)
        return await workflow.execute_activity(
            call_carrier, parcel, start_to_close_timeout=10, retry_policy=retries
        )


@workflow.defn
class Broken:
    """Is blocked: its code has a fault."""

    @workflow.run
    async def run(self) -> str:
        addresses: dict[str, str] = {}
        return addresses["warehouse"]


@workflow.defn
class Unserved:
    """Waits for a worker of a queue that nobody serves."""

    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            "weigh", task_queue="warehouse-scales", start_to_close_timeout=10, result_type=str
        )


@workflow.defn
class Conversation:
    """Keeps what it is told, until it is told to stop."""

    def __init__(self) -> None:
        self._said: list[Any] = []
        self._over = asyncio.Event()

    @workflow.run
    async def run(self, first: Any) -> list[Any]:
        self._said.append(first)
        await self._over.wait()
        return self._said

    @workflow.signal
    def say(self, words: Any) -> None:
        """Say something."""
        self._said.append(words)

    @workflow.signal
    def stop(self) -> None:
        """Let it end."""
        self._over.set()

    @workflow.query
    def said(self) -> list[Any]:
        """All that was said."""
        return self._said
