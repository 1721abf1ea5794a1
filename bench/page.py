"""The page of a run of 20,000 events in as many turns: its first open, and those while somebody looks at it.

The run is folded as a view folds it. The page is asked for as over HTTP, but without a network.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from bench.view import START_MS, turn_of
from orchestrator import config
from orchestrator.api.app import create_app
from orchestrator.api.backend import Backend
from orchestrator.api.embedded_overview import EmbeddedOverview
from orchestrator.api.reads import ThreadedReader
from orchestrator.cli.process import settle_collector
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.embedded_aio import EmbeddedAioLog
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Turn
from orchestrator.protocol.values import Payload
from orchestrator.store.fold import HistoryFold
from orchestrator.store.partition_store import PartitionStore
from orchestrator.view.store_reader import StoreReader

EVENTS = 20_000
RUNS = 5
"""Each is opened cold once."""

WARM = 10
"""How often each is opened again."""

Figures = dict[str, float]


async def measure() -> Figures:
    """Open the pages; medians, and the longest, in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="bench-page-") as folder:
        store = PartitionStore(Path(folder) / "store", log_id="bench", indexed=True)
        log = EmbeddedLog(Path(folder) / "log")
        aio = EmbeddedAioLog(log)
        reader = ThreadedReader(StoreReader(lambda: [store]))
        backend = Backend(aio, reader, EmbeddedOverview(log, lambda: [store]))
        fill(store)
        settle_collector()
        transport = httpx.ASGITransport(create_app(backend))
        try:
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{config.HOST}") as http:
                await timed(http, "warm-up", 1)  # templates are compiled once
                cold, warm = [], []
                for number in range(RUNS):
                    cold += await timed(http, f"run-{number}", 1)
                    warm += await timed(http, f"run-{number}", WARM)
        finally:
            await backend.close()
            await aio.close()
            await asyncio.to_thread(log.close)
            store.close()
    return figures("cold", cold) | figures("warm", warm)


def fill(store: PartitionStore) -> None:
    """A short run, and those that are measured."""
    fold = HistoryFold(store, strict=False)
    for number, (name, events) in enumerate([("warm-up", 10), *((f"run-{n}", EVENTS) for n in range(RUNS))]):
        for turn in turns_of(name, f"{number:032x}", events):
            assert fold.add(turn, fold.next_offset) == ""
        fold.flush()


def turns_of(workflow_id: str, run_id: str, events: int) -> Iterator[Turn]:
    """Activities one after the other, an event in each turn; the run stays open."""
    yield turn_of(workflow_id, run_id, 1, 1, START_MS, (e.WorkflowStarted(workflow_type="Long"),))
    for number in range(2, events + 1):
        activity = number // 2
        event: e.Event = e.ActivityCompleted(activity_id=activity, result=Payload(data=b"1"))
        if number % 2 == 0:
            event = e.ActivityScheduled(
                activity_id=activity, activity_type=f"step-{activity % 5}", task_queue="default", worker="w"
            )
        yield turn_of(workflow_id, run_id, number, number, START_MS + 50 * number, (event,))


async def timed(http: httpx.AsyncClient, workflow_id: str, times: int) -> list[tuple[float, float]]:
    """Wall and processor time of an open, in milliseconds."""
    address = (await http.get(f"/workflows/{workflow_id}")).headers["location"]
    took = []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = await http.get(address, timeout=60)
        took.append(((time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3))
        assert answer.status_code == 200
    return took


def figures(name: str, took: list[tuple[float, float]]) -> Figures:
    """The median of each, and the longest."""
    wall, cpu = (sorted(one) for one in zip(*took, strict=True))
    half = len(took) // 2
    return {f"{name}_ms": wall[half], f"{name}_max_ms": wall[-1], f"{name}_cpu_ms": cpu[half]}
