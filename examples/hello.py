"""The smallest program: one workflow, one activity, everything in this process."""

import asyncio

import orchestrator
from orchestrator import activity, workflow


@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow.defn
class Hello:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(greet, name, start_to_close_timeout=10)


async def main() -> None:
    async with orchestrator.embedded(workflows=[Hello], activities=[greet]) as client:
        print(await client.execute_workflow(Hello.run, "world", id="hello"))


if __name__ == "__main__":
    asyncio.run(main())
