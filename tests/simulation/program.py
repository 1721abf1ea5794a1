"""What the simulated workflows do: small random programs whose result is known beforehand."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from random import Random
from typing import Any

from orchestrator import workflow
from orchestrator.errors import ActivityFailure, ApplicationError

Step = list[Any]
Program = list[Step]

TOPICS = ("shipped", "paid")

RETRY = workflow.RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=0)
TWICE = workflow.RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=2)


def draw(rng: Random) -> Program:
    """A program of a few steps; with ``signals`` it needs as many from outside."""
    kinds = ["activity", "flaky", "fails", "sleep", "gather", "timeout", "cancel"]
    steps: Program = []
    for _ in range(rng.randint(1, 4)):
        kind = rng.choice(kinds)
        if kind == "sleep":
            steps.append([kind, rng.choice([1, 300, 5_000])])
        elif kind == "gather":
            steps.append([kind, rng.randint(2, 5)])
        else:
            steps.append([kind, rng.randint(1, 3)])
    if rng.random() < 0.4:
        steps.insert(rng.randint(0, len(steps)), ["signals", rng.randint(1, 3)])
    if rng.random() < 0.4:
        steps.insert(rng.randint(0, len(steps)), ["publish", rng.randint(1, 4)])
    if rng.random() < 0.15:
        steps.append(["raise", 0])
    return steps


def signals_of(program: Program) -> int:
    """How many signals the program waits for."""
    return sum(step[1] for step in program if step[0] == "signals")


def expected(program: Program) -> tuple[str, int]:
    """The status and the sum that a program ends with, if nobody cancels or terminates it."""
    total = 0
    for kind, number in program:
        if kind in ("activity", "flaky"):
            total += number
        elif kind == "gather":
            total += sum(range(number))
        elif kind == "signals":
            total += number
        elif kind == "fails":
            total += 100
        elif kind == "timeout":
            total += 1_000
        elif kind == "cancel":
            total += 10_000
        elif kind == "raise":
            return "Failed", total
    return "Completed", total


@workflow.defn
class Interpreter:
    """Runs a program; answers how many signals came."""

    def __init__(self) -> None:
        self.signals = 0
        self.total = 0

    @workflow.run
    async def run(self, program: Program) -> int:
        awaited = 0
        for kind, number in program:
            if kind == "signals":
                awaited += number
                wanted = awaited
                await workflow.wait_condition(lambda wanted=wanted: self.signals >= wanted)  # type: ignore[misc]
                self.total += number
            else:
                self.total += await getattr(self, f"_{kind}")(number)
            workflow.publish(TOPICS[0], {"ended": kind})
        return self.total

    async def _activity(self, number: int) -> int:
        return await _execute("ok", number)

    async def _flaky(self, number: int) -> int:
        return await _execute("flaky", number)

    async def _fails(self, number: int) -> int:
        try:
            await _execute("fails", number, retry_policy=TWICE)
        except ActivityFailure:
            return 100
        return 0

    async def _sleep(self, delay_ms: int) -> int:
        await workflow.sleep(delay_ms / 1_000)
        return 0

    async def _gather(self, count: int) -> int:
        return sum(await asyncio.gather(*(_execute("ok", n) for n in range(count))))

    async def _timeout(self, number: int) -> int:
        """The activity never ends by itself: its start-to-close timeout passes, twice."""
        try:
            await workflow.execute_activity(
                "hangs", number, start_to_close_timeout=2, retry_policy=TWICE, result_type=int
            )
        except ActivityFailure:
            return 1_000
        return 0

    async def _cancel(self, number: int) -> int:
        """The code gives up waiting: the activity is cancelled wherever it is."""
        try:
            async with asyncio.timeout(number / 2):
                await workflow.execute_activity("hangs", number, start_to_close_timeout=600, result_type=int)
        except TimeoutError:
            return 10_000
        return 0

    async def _publish(self, count: int) -> int:
        for number in range(count):
            workflow.publish(TOPICS[number % 2], {"number": number})
        return 0

    async def _raise(self, number: int) -> int:
        raise ApplicationError("as the program says", type="Planned")

    @workflow.signal
    def poke(self) -> None:
        self.signals += 1

    @workflow.query
    def status(self) -> int:
        return self.signals


async def _execute(name: str, number: int, **options: Any) -> int:
    """An activity that nothing but its own end, or its worker's, can free: no short timeout helps it."""
    options.setdefault("retry_policy", RETRY)
    return await workflow.execute_activity(
        name, number, schedule_to_close_timeout=7_200, result_type=int, **options
    )
