"""Steady work for an engine that is killed under it: what is run, what its client does, and what is noted.

A folder holds what outlives every process: ``intents`` (ids that are to be started), ``acknowledged`` (what
the client's calls have returned) and ``ledger`` (what activities really ran).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import NamedTuple

from orchestrator import activity, workflow
from orchestrator.client.client import Client
from orchestrator.errors import ApplicationError

FLOWS = 6
"""So many workflows are under way at a time in the client."""

POKES = (1, 2)
"""The signals that each workflow waits for."""

PREFIX = "w-"
"""Of the ids of steady work: other tests' workflows have others."""

RETRY = workflow.RetryPolicy(initial_interval=0.005, backoff_coefficient=1.0)


class Line(NamedTuple):
    """A line of the ledger: an attempt that began to run."""

    generation: int
    pid: int
    run_id: str
    activity_id: int
    attempt: int


class Notes:
    """A file of lines that survives the process: one write per line, which the kernel keeps."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())

    @staticmethod
    def read(path: Path) -> list[list[str]]:
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def read_ledger(folder: Path) -> list[Line]:
    """What ran, in order."""
    return [
        Line(int(words[0]), int(words[1]), words[2], int(words[3]), int(words[4]))
        for words in Notes.read(folder / "ledger")
    ]


# ------------------------------------------------------------------------------------- what is run

_ledger: Notes
_generation = 0


def keep_ledger(folder: Path, generation: int = 0) -> None:
    """Activities of this process note themselves there. ``generation``: how often the engine was started."""
    global _ledger, _generation
    _ledger, _generation = Notes(folder / "ledger"), generation


def begin() -> activity.ActivityInfo:
    """To be called first by every activity."""
    info = activity.info()
    _ledger.add(_generation, os.getpid(), info.run_id, info.activity_id, info.attempt)
    return info


@activity.defn
async def compute(number: int) -> int:
    """Takes up to 20 ms; every fourth one fails at first."""
    info = begin()
    await asyncio.sleep(number % 5 * 0.005)
    if number % 4 == 3 and info.attempt == 1:
        raise ApplicationError("at first it fails")
    return number


@activity.defn
def compute_in_a_thread(number: int) -> int:
    """The same for code that blocks."""
    begin()
    return number


@workflow.defn
class Steady:
    """Two activities, a timer, two signals, an activity more."""

    def __init__(self) -> None:
        self.pokes: list[int] = []

    @workflow.run
    async def run(self, number: int) -> list[int]:
        first, second = await asyncio.gather(_execute(compute, number), _execute(compute_in_a_thread, number))
        await workflow.sleep(0.001 * (number % 10))
        await workflow.wait_condition(lambda: len(self.pokes) >= len(POKES))
        third = await _execute(compute, number + 1)
        return [first, second, third, *sorted(self.pokes)]

    @workflow.signal
    def poke(self, which: int) -> None:
        self.pokes.append(which)


async def _execute(function: object, number: int) -> int:
    result: int = await workflow.execute_activity(
        function,  # type: ignore[arg-type]
        number,
        start_to_close_timeout=60,
        retry_policy=RETRY,
    )
    return result


def expected(number: int) -> list[int]:
    """The result of a workflow."""
    return [number, number, number + 1, *POKES]


# --------------------------------------------------------------------------------- the client's work


class Work:
    """What the client does, however long an engine takes to answer.

    Each step is acknowledged in a file only after its call has returned.
    """

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._acknowledged = Notes(folder / "acknowledged")
        self._intents = Notes(folder / "intents")
        self._done = {(words[0], words[1]) for words in Notes.read(folder / "acknowledged")}
        self._begun = len(Notes.read(folder / "intents"))
        self.enough = asyncio.Event()
        """Set by who has seen enough: nothing new is begun, and what is under way is finished."""
        self.finished = 0

    async def run(self, *, finish: bool = False, flows: int = FLOWS) -> None:
        """Go on with what was begun before; unless only that is to be finished, begin more and more."""
        left = [number for number in range(self._begun) if ("result", name(number)) not in self._done]
        async with asyncio.TaskGroup() as group:
            for number in left:
                group.create_task(self._serve(number))
            for _ in range(0 if finish else flows):
                group.create_task(self._flow())

    async def _flow(self) -> None:
        while not self.enough.is_set():
            number, self._begun = self._begun, self._begun + 1
            self._intents.add(number)
            await self._serve(number)

    async def _serve(self, number: int) -> None:
        id = name(number)
        handle = self._client.get_workflow_handle(id)
        if ("start", id) not in self._done:
            started = await self._client.start_workflow(
                Steady.run, number, id=id, request_id=f"{id}/start", timeout=None
            )
            self._acknowledged.add("start", id, started.run_id)
        for which in POKES:
            if (f"poke-{which}", id) not in self._done:
                await handle.signal(Steady.poke, which, request_id=f"{id}/poke-{which}", timeout=None)
                self._acknowledged.add(f"poke-{which}", id)
        result = await handle.result()
        if result != expected(number):
            raise AssertionError(f"{id} returned {result}, expected was {expected(number)}")
        self._acknowledged.add("result", id)
        self.finished += 1


def name(number: int) -> str:
    """The workflow's id."""
    return f"{PREFIX}{number}"
