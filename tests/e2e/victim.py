"""A process that works steadily on a data folder, and is killed in the middle of it, again and again.

``python -m tests.e2e.victim`` is a fork server: it has imported everything, and forks a child for each
life, so that a life costs the start of an engine and not that of Python. It opens no RocksDB and starts no
thread of its own, so a child inherits neither. Each line on stdin is a ``Life``; each line on stdout says
how it ended.

A folder holds, beside the engine's data, what outlives the child: ``intents`` (ids that are to be started),
``acknowledged`` (what the client's calls have returned), ``ledger`` (what activities really ran) and
``visits`` (at which points the process killed itself).
"""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import NamedTuple, Self

import msgspec

from orchestrator import activity, workflow
from orchestrator.api.embedded import Engine
from orchestrator.client.client import Client
from orchestrator.coordinator.runtime import SystemRuntime
from orchestrator.errors import ApplicationError
from orchestrator.worker.worker import Worker

FLOWS = 6
"""So many workflows are under way at a time in the client."""

POKES = (1, 2)
"""The signals that each workflow waits for."""

PATIENCE_S = 60.0
"""A life that has not ended by then hangs, and is ended."""

RETRY = workflow.RetryPolicy(initial_interval=0.005, backoff_coefficient=1.0)


class Life(msgspec.Struct, frozen=True):
    """What a child does: work without an end until it dies at a point or a time, or finish what is left."""

    folder: str
    point: str = ""
    visit: int = 1
    kill_after_s: float = PATIENCE_S
    """Since the fork; or, if ``when_ready``, since the engine owned its partitions."""
    when_ready: bool = False
    finish: bool = False


class Death(msgspec.Struct, frozen=True):
    """How a child ended: its exit code (a signal is negative), and whether the server had to end it."""

    code: int
    ended_by_server: bool


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


# ------------------------------------------------------------------------------------- what is run

_ledger: Notes
_generation = 0


def _begin() -> activity.ActivityInfo:
    info = activity.info()
    _ledger.add(_generation, os.getpid(), info.run_id, info.activity_id, info.attempt)
    return info


@activity.defn
async def compute(number: int) -> int:
    """Takes up to 20 ms; every fourth one fails at first."""
    info = _begin()
    await asyncio.sleep(number % 5 * 0.005)
    if number % 4 == 3 and info.attempt == 1:
        raise ApplicationError("at first it fails")
    return number


@activity.defn
def compute_in_a_thread(number: int) -> int:
    """The same for code that blocks."""
    _begin()
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


# ---------------------------------------------------------------------------------------- a life


class Suicide:
    """Kills this process at the nth visit of a point."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._left = life.visit
        self._visits = Notes(Path(life.folder) / "visits")

    def at(self, point: str) -> None:
        if point != self._life.point:
            return
        self._left -= 1
        if self._left == 0:
            self._visits.add(point, self._life.visit)
            os.kill(os.getpid(), signal.SIGKILL)


class Work:
    """What the client does. Each step is acknowledged in a file only after its call has returned."""

    def __init__(self, client: Client, folder: Path) -> None:
        self._client = client
        self._acknowledged = Notes(folder / "acknowledged")
        self._intents = Notes(folder / "intents")
        self._done = {(words[0], words[1]) for words in Notes.read(folder / "acknowledged")}
        self._begun = len(Notes.read(folder / "intents"))

    async def run(self, *, finish: bool) -> None:
        left = [number for number in range(self._begun) if ("result", f"w-{number}") not in self._done]
        async with asyncio.TaskGroup() as group:
            for number in left:
                group.create_task(self._serve(number))
            for _ in range(0 if finish else FLOWS):
                group.create_task(self._flow())

    async def _flow(self) -> None:
        while True:
            number, self._begun = self._begun, self._begun + 1
            self._intents.add(number)
            await self._serve(number)

    async def _serve(self, number: int) -> None:
        id = f"w-{number}"
        handle = self._client.get_workflow_handle(id)
        if ("start", id) not in self._done:
            started = await self._client.start_workflow(Steady.run, number, id=id, request_id=f"{id}/start")
            self._acknowledged.add("start", id, started.run_id)
        for which in POKES:
            if (f"poke-{which}", id) not in self._done:
                await handle.signal(Steady.poke, which, request_id=f"{id}/poke-{which}")
                self._acknowledged.add(f"poke-{which}", id)
        result = await handle.result()
        if result != expected(number):
            raise AssertionError(f"{id} returned {result}, expected was {expected(number)}")
        self._acknowledged.add("result", id)


async def _live(life: Life, ready: int) -> None:
    global _ledger, _generation  # noqa: PLW0603
    folder = Path(life.folder)
    _ledger = Notes(folder / "ledger")
    engine = Engine(folder / "data", [Steady], runtime=SystemRuntime(Suicide(life).at))
    _generation = engine.log.generation
    await engine.wait_ready()
    os.write(ready, b"!")
    aio = engine.aio()
    async with Client(aio) as client, Worker(aio, activities=[compute, compute_in_a_thread]):
        await Work(client, folder).run(finish=life.finish)
    await aio.close()
    engine.close()


# ------------------------------------------------------------------------------------ fork server


def _child(life: Life, ready: int) -> int:
    """The life of a child; returns its exit code, if it comes to that."""
    output = os.open(Path(life.folder) / "output", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        asyncio.run(_live(life, ready))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


def _watch(pid: int, life: Life, ready: int) -> Death:
    """Wait until a child has ended by itself, or its time has come."""
    handle = os.pidfd_open(pid)
    if life.when_ready:
        select.select([handle, ready], [], [], PATIENCE_S)
    ended, _, _ = select.select([handle], [], [], life.kill_after_s)
    os.close(handle)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    return Death(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), not ended)


def main() -> None:
    """Serve lives, one after another."""
    for line in sys.stdin.buffer:
        life = msgspec.json.decode(line, type=Life)
        assert threading.active_count() == 1, "a child would inherit a lock that nobody releases"
        parent_end, child_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            os._exit(_child(life, child_end))
        death = _watch(pid, life, parent_end)
        os.close(parent_end)
        os.close(child_end)
        sys.stdout.buffer.write(msgspec.json.encode(death) + b"\n")
        sys.stdout.buffer.flush()


class Victims:
    """The fork server, as tests see it."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.victim"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )

    def live(self, life: Life) -> Death:
        """Let a child live; returns when it is dead."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        Path(life.folder).mkdir(parents=True, exist_ok=True)
        self._server.stdin.write(msgspec.json.encode(life) + b"\n")
        self._server.stdin.flush()
        return msgspec.json.decode(self._server.stdout.readline(), type=Death)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(PATIENCE_S)


if __name__ == "__main__":
    main()
