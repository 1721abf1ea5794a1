"""What the coordinators and workers of the tests of failures run; given to them as a module."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from orchestrator import activity, workflow
from tests.e2e import steady
from tests.e2e.steady import Steady, compute, compute_in_a_thread

__all__ = [
    "Announcer",
    "Gated",
    "Sleeper",
    "Slow",
    "Steady",
    "Teller",
    "compute",
    "compute_in_a_thread",
    "linger",
    "pass_gate",
]

FOLDER = "TEST_FOLDER"
"""Names the folder of the ledger."""

if FOLDER in os.environ:
    steady.keep_ledger(Path(os.environ[FOLDER]))


@workflow.defn
class Sleeper:
    """Timers only."""

    @workflow.run
    async def run(self, naps: int, nap_s: float) -> int:
        for _ in range(naps):
            await workflow.sleep(nap_s)
        return naps


@activity.defn
async def linger(seconds: float) -> int:
    """Stays for some time; returns the process that it was in."""
    steady.begin()
    await asyncio.sleep(seconds)
    return os.getpid()


@workflow.defn
class Slow:
    """Activities one after another, each of some time; returns where they ran."""

    @workflow.run
    async def run(self, count: int, seconds: float) -> list[int]:
        pids = []
        for _ in range(count):
            pid = await workflow.execute_activity(linger, seconds, start_to_close_timeout=120)
            pids.append(pid)
        return pids


@activity.defn
async def pass_gate(name: str) -> int:
    """Ends when a file of that name is in the folder; returns the process that it was in."""
    steady.begin()
    while not _is_open(name):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    return os.getpid()


def _is_open(gate: str) -> bool:
    return Path(os.environ[FOLDER], gate).exists()


@workflow.defn
class Gated:
    """One activity, which ends when a test says so; returns where it ran."""

    @workflow.run
    async def run(self, gate: str) -> int:
        pid: int = await workflow.execute_activity(pass_gate, gate, start_to_close_timeout=120)
        return pid


@workflow.defn
class Announcer:
    """Publishes again and again, from its first turn to its last."""

    @workflow.run
    async def run(self, topic: str, count: int) -> None:
        for number in range(count):
            workflow.publish(topic, {"number": number})
            await workflow.sleep(0.1)
        workflow.publish(topic, {"number": count})


@workflow.defn
class Teller:
    """Publishes what it is told, and counts it; ends when it is told nothing."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.over = False

    @workflow.run
    async def run(self, topic: str = "") -> int:
        if topic:
            workflow.publish(topic, {"told": "at the start"})
        await workflow.wait_condition(lambda: self.over)
        return len(self.told)

    @workflow.signal
    def tell(self, word: str) -> None:
        self.told.append(word)

    @workflow.signal
    def end(self) -> None:
        self.over = True

    @workflow.query
    def words(self) -> list[str]:
        return self.told
