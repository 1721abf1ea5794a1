"""The workflows that are measured."""

from __future__ import annotations

import asyncio

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
