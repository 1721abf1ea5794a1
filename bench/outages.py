"""Cases on Kafka in which coordinators end and begin: how long nothing is decided."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from bench.cases import Figures
from bench.roles import PARTITIONS, Engine
from bench.workflows import OneActivity, Waiting
from orchestrator import Client
from orchestrator.protocol.ids import partition_of

OPEN_RUNS = 10_000
STARTING = 500
"""So many starts are under way at a time."""

FLOWS = 64
"""Under way while a coordinator is killed."""

LOAD_S = 2.0
"""They run for so long before."""


async def _first_answers(client: Client, prefix: str) -> float:
    """Seconds until a workflow on each partition, started now, is done."""
    ids: dict[int, str] = {}
    number = 0
    while len(ids) < PARTITIONS:
        workflow_id = f"{prefix}-{number}"
        ids.setdefault(partition_of(workflow_id, PARTITIONS), workflow_id)
        number += 1
    begin = time.perf_counter()
    await asyncio.gather(*(client.execute_workflow(OneActivity.run, 1, id=id) for id in ids.values()))
    return time.perf_counter() - begin


async def restart(engine: Engine, client: Client) -> Figures:
    """With many open runs: from the start of the process to answers from all partitions.

    First with the folder that the one before left, then with an empty one, which is filled from Kafka.
    """
    numbers = iter(range(OPEN_RUNS))

    async def start_some() -> None:
        for n in numbers:
            await client.start_workflow(Waiting.run, n, id=f"open-{n}")

    await asyncio.gather(*(start_some() for _ in range(STARTING)))
    figures: Figures = {}
    for name, folder in (("restart_s", "coordinator"), ("empty_folder_s", "empty")):
        await asyncio.to_thread(engine.end, "coordinator", signal.SIGTERM)
        answers = asyncio.create_task(_first_answers(client, name))
        await asyncio.sleep(0)  # the commands are on their way, and the time is running
        await engine.coordinator(data=folder)
        figures[name] = await answers
    return figures


async def takeover(engine: Engine, client: Client) -> Figures:
    """Under load, one of two coordinators ends: until all partitions answer again."""
    figures: Figures = {}
    enough = asyncio.Event()

    async def loop(number: int) -> None:
        n = 0
        while not enough.is_set():
            await client.execute_workflow(OneActivity.run, n, id=f"load-{number}-{n}")
            n += 1

    load = [asyncio.create_task(loop(number)) for number in range(FLOWS)]
    ends: tuple[tuple[str, str, str, signal.Signals], ...] = (
        ("sigkill_s", "coordinator", "second", signal.SIGKILL),
        ("sigterm_s", "second", "third", signal.SIGTERM),
    )
    for figure, ending, other, number in ends:
        await engine.coordinator(other)
        await engine.shared_by(2)
        await asyncio.sleep(LOAD_S)
        end: Callable[[str, signal.Signals], None] = engine.end
        begin = time.perf_counter()
        await asyncio.to_thread(end, ending, number)
        await _first_answers(client, figure)
        figures[figure] = time.perf_counter() - begin
    enough.set()
    await asyncio.gather(*load)
    return figures
