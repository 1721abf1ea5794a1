"""An order whose card is declined, and a person who lets it go on. The workflow is
``orchestrator/demo/orders.py``: read that first.

Here the person decides at once. It may be days, and any number of restarts, if ``embedded("some/folder")``
keeps the data.
"""

import asyncio

import orchestrator
from orchestrator.activity import find_definitions
from orchestrator.contrib import orders as activities
from orchestrator.contrib.orders import DECLINED_CARD, Order
from orchestrator.demo.orders import OrderFulfilment


async def main() -> None:
    order = Order("o-17", "desk", 1, 42_000, DECLINED_CARD, "Skolegade 8, Aarhus")
    async with orchestrator.embedded(
        workflows=[OrderFulfilment], activities=find_definitions(activities)
    ) as client:
        handle = await client.start_workflow(OrderFulfilment.run, order, id=order.id)
        status = ""
        while not status.startswith("manual review"):
            await asyncio.sleep(0.1)
            status = await handle.query(OrderFulfilment.status)
            print("status:", status)
        await handle.signal(OrderFulfilment.approve)
        print(await handle.result())


if __name__ == "__main__":
    asyncio.run(main())
