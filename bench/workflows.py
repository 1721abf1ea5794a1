"""The workflows that are measured."""

from __future__ import annotations

import asyncio
import time

from orchestrator import activity, workflow


@activity.defn
async def echo(value: int) -> int:
    return value


@workflow.defn
class OneActivity:
    @workflow.run
    async def run(self, value: int) -> int:
        return await workflow.execute_activity(echo, value, start_to_close_timeout=60)


@workflow.defn
class FiveActivities:
    @workflow.run
    async def run(self, value: int) -> int:
        for _ in range(5):
            value = await workflow.execute_activity(echo, value, start_to_close_timeout=60)
        return value


@workflow.defn
class FanOut:
    @workflow.run
    async def run(self, count: int) -> int:
        found = await asyncio.gather(
            *(workflow.execute_activity(echo, n, start_to_close_timeout=600) for n in range(count))
        )
        return sum(found)


@activity.defn
async def begun(value: int) -> float:
    return time.time()


@workflow.defn
class Begun:
    """Returns when its activity began, by the clock of this machine."""

    @workflow.run
    async def run(self, value: int) -> float:
        return await workflow.execute_activity(begun, value, start_to_close_timeout=60)


@workflow.defn
class Waiting:
    """Stays open, after an activity."""

    def __init__(self) -> None:
        self._enough = False

    @workflow.signal
    def enough(self) -> None:
        self._enough = True

    @workflow.run
    async def run(self, value: int) -> int:
        value = await workflow.execute_activity(echo, value, start_to_close_timeout=60)
        await workflow.wait_condition(lambda: self._enough)
        return value
