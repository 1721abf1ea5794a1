"""Business events: a workflow tells the rest of the company what it did, exactly once, on topics of yours.

On Kafka any consumer reads them, in any language: the value is plain JSON, the key is the workflow id, and
headers say which run published it. In one process, as here, the topics live in the engine's data folder.
"""

import asyncio
import json

import orchestrator
from orchestrator import activity, workflow


@activity.defn
async def ship(order: str) -> str:
    return f"tracking-{order}"


@workflow.defn
class Order:
    @workflow.run
    async def run(self, order: str) -> str:
        workflow.publish("order-accepted", {"order": order})
        tracking = await workflow.execute_activity(ship, order, start_to_close_timeout=60)
        workflow.publish("order-shipped", {"order": order, "tracking": tracking})
        return tracking


async def main() -> None:
    async with orchestrator.embedded(workflows=[Order], activities=[ship]) as client:
        await client.execute_workflow(Order.run, "o-17", id="order-17")
        (shipped,) = await client.read_topic("order-shipped", timeout=10)
        print(shipped.key.decode(), json.loads(shipped.value or b"null"))


if __name__ == "__main__":
    asyncio.run(main())
