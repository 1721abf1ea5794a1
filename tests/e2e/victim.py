"""A process that works steadily on a data folder, and is killed in the middle of it, again and again.

``python -m tests.e2e.victim`` is a fork server: it has imported everything, and forks a child for each
life, so that a life costs the start of an engine and not that of Python. It opens no RocksDB and starts no
thread of its own, so a child inherits neither. Each line on stdin is a ``Life``; each line on stdout says
how it ended.

A folder holds, beside the engine's data and what ``steady`` notes, ``visits``: at which points the process
killed itself.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Self

import msgspec

from orchestrator import workflow
from orchestrator.api.embedded import Engine
from orchestrator.client.client import Client
from orchestrator.coordinator.runtime import SystemRuntime
from orchestrator.worker.worker import Worker
from tests.e2e.steady import Notes, Steady, Work, compute, compute_in_a_thread, keep_ledger

TOPIC = "told"
"""Where one kind of workflows publishes."""

PATIENCE_S = 60.0
"""A life that has not ended by then hangs, and is ended."""


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


# ---------------------------------------------------------------------------------------- a life


@workflow.defn
class Telling:
    """Publishes all the time, from its first turn to its last."""

    @workflow.run
    async def run(self) -> None:
        for number in range(4):
            workflow.publish(TOPIC, number)
            await workflow.sleep(0.002)
        workflow.publish(TOPIC, "end")


async def _tell(client: Client, generation: int) -> None:
    for number in itertools.count():
        id = f"told-{generation}-{number}"
        await client.execute_workflow(Telling.run, id=id, request_id=id)


def _unfinished(engine: Engine) -> bool:
    """Whether runs are open, or business events have yet to leave, or to be known to have left."""
    stores = [store for store in engine._stores() if store is not None]
    return any(next(store.open_runs(), None) or next(store.unpublished(), None) for store in stores)


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


async def _live(life: Life, ready: int) -> None:
    folder = Path(life.folder)
    engine = Engine(folder / "data", [Steady, Telling], runtime=SystemRuntime(Suicide(life).at))
    keep_ledger(folder, engine.log.generation)
    await engine.wait_ready()
    os.write(ready, b"!")
    aio = engine.aio()
    async with Client(aio) as client, Worker(aio, activities=[compute, compute_in_a_thread]):
        telling = asyncio.create_task(_tell(client, engine.log.generation)) if not life.finish else None
        await Work(client, folder).run(finish=life.finish)
        while _unfinished(engine):  # noqa: ASYNC110  # the store has nobody to tell
            await asyncio.sleep(0.005)
        if telling is not None:
            telling.cancel()
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
