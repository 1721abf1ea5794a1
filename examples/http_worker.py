"""A worker in a program of its own, next to the things that it works with. In two terminals, here:

    orchestrator dev http_worker     # the engine, with the workflow of this file
    python http_worker.py            # a worker for its activity, and a client

The address of the engine is ``$ORCHESTRATOR_ADDRESS``, or else http://127.0.0.1:7350.
"""

import asyncio
import os
import sys

from orchestrator import Client, Worker, activity, workflow
from orchestrator.errors import Unavailable

ADDRESS = os.environ.get("ORCHESTRATOR_ADDRESS", "http://127.0.0.1:7350")
QUEUE = "measuring"
"""Only workers that serve this queue get the activity; the engine's own worker does not."""


@activity.defn
def measure(room: str) -> str:
    return f"{room}: 21 °C, measured by process {os.getpid()}"


@workflow.defn
class Measurement:
    @workflow.run
    async def run(self, room: str) -> str:
        return await workflow.execute_activity(measure, room, task_queue=QUEUE, start_to_close_timeout=10)


async def main() -> None:
    async with (
        await Client.connect(ADDRESS) as client,
        Worker(ADDRESS, activities=[measure], task_queue=QUEUE),
    ):
        print(await client.execute_workflow(Measurement.run, "kitchen", id="kitchen"))


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Unavailable as error:
        sys.exit(str(error))
