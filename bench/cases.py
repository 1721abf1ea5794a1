"""The cases: each runs in a process of its own, on the embedded log in a temporary folder."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orchestrator
from bench import page, view
from bench.workflows import FanOut, FiveActivities, OneActivity, echo
from orchestrator import Client
from orchestrator.cli.process import settle_collector

Figures = dict[str, float]


async def sequential(client: Client, workflow: Any, count: int) -> Figures:
    """One in flight: each workflow starts when the one before is done."""
    for n in range(50):
        await client.execute_workflow(workflow.run, n, id=f"warm-up-{n}")
    took = []
    for n in range(count):
        begin = time.perf_counter()
        await client.execute_workflow(workflow.run, n, id=f"sequential-{n}")
        took.append(time.perf_counter() - begin)
    took.sort()
    return {
        "per_s": count / sum(took),
        "p50_ms": took[count // 2] * 1e3,
        "p99_ms": took[count * 99 // 100] * 1e3,
    }


async def concurrent(
    client: Client, workflow: Any, count: int, in_flight: int, *, prefix: str = "concurrent"
) -> Figures:
    """``in_flight`` at a time: so many loops, each as :func:`sequential`."""
    took: list[float] = []
    numbers = iter(range(count + in_flight))

    async def loop() -> None:
        for n in numbers:
            begin = time.perf_counter()
            await client.execute_workflow(workflow.run, n, id=f"{prefix}-{n}")
            took.append(time.perf_counter() - begin)

    await client.execute_workflow(workflow.run, 0, id="warm-up")
    cpu, begin = time.process_time(), time.perf_counter()
    await asyncio.gather(*(loop() for _ in range(in_flight)))
    wall = time.perf_counter() - begin
    cpu = time.process_time() - cpu
    took.sort()
    return {
        "per_s": len(took) / wall,
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[len(took) * 99 // 100] * 1e3,
        "cpu_us": cpu / len(took) * 1e6,
    }


async def fan_out(client: Client, count: int) -> Figures:
    """One workflow that runs ``count`` activities in parallel."""
    await client.execute_workflow(FanOut.run, 10, id="warm-up")
    begin = time.perf_counter()
    assert await client.execute_workflow(FanOut.run, count, id="fan-out", timeout=600) == sum(range(count))
    wall = time.perf_counter() - begin
    return {"per_s": count / wall, "us_per_activity": wall / count * 1e6}


async def memory(client: Client, first: int, second: int) -> Figures:
    """Resident memory after ``first`` and after ``second`` workflows, 500 at a time."""
    numbers = iter(range(second))
    marks: Figures = {}
    done = 0

    async def loop() -> None:
        nonlocal done
        for n in numbers:
            await client.execute_workflow(OneActivity.run, n, id=f"memory-{n}")
            done += 1
            if done == first:
                marks["rss_first_mb"] = _rss_mb()

    await asyncio.gather(*(loop() for _ in range(100)))
    marks["rss_second_mb"] = _rss_mb()
    marks["growth_mb"] = marks["rss_second_mb"] - marks["rss_first_mb"]
    return marks


def _rss_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 1e6


Case = Callable[[], Awaitable[Figures]]


def on_engine(case: Callable[[Client], Awaitable[Figures]]) -> Case:
    """Run a case on a fresh engine, with the collector set as ``orchestrator dev`` sets it."""

    async def run_case() -> Figures:
        async with orchestrator.embedded(
            workflows=[OneActivity, FiveActivities, FanOut],
            activities=[echo],
            max_concurrent_activities=1_000,
        ) as client:
            settle_collector()
            return await case(client)

    return run_case


async def lists() -> Figures:
    """See :mod:`bench.view`; smaller with ``BENCH_RUNS``."""
    return view.measure(int(os.environ.get("BENCH_RUNS", view.RUNS)))


CASES: dict[str, tuple[str, Case]] = {
    "one": ("1 in flight", on_engine(lambda client: sequential(client, OneActivity, 1_000))),
    "64": ("64 in flight", on_engine(lambda client: concurrent(client, OneActivity, 10_000, 64))),
    "500": ("500 in flight", on_engine(lambda client: concurrent(client, OneActivity, 20_000, 500))),
    "five": (
        "five activities in sequence, 64 in flight",
        on_engine(lambda client: concurrent(client, FiveActivities, 3_000, 64)),
    ),
    "fan-1000": ("fan-out of 1,000", on_engine(lambda client: fan_out(client, 1_000))),
    "fan-10000": ("fan-out of 10,000", on_engine(lambda client: fan_out(client, 10_000))),
    "memory": ("memory after 20,000 and 100,000", on_engine(lambda client: memory(client, 20_000, 100_000))),
    "page": ("page of a run of 20,000 events", page.measure),
    "view": ("first pages over 1,000,000 runs", lists),
}


async def run(name: str) -> Figures:
    """Run one case."""
    return await CASES[name][1]()
