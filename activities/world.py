"""The outside world of the examples: banks, registries and warehouses, played by two files in a folder.

``ledger.jsonl`` has a line for each execution of an activity, ``effects.jsonl`` one for each effect that
an execution had. The second is what a payment provider has too: it remembers idempotency keys. The first
is a witness: it says what really ran, whatever the engine believes.

A thing of the world, such as a bank, can be held: what needs it waits. So who shows what an engine can do
stops the world at a moment of their choice, and pulls the plug.

The folder is named by the environment variable ``ORCHESTRATOR_WORLD``, so that the same activities work
in a program, under ``orchestrator dev``, in tests and in the demo.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

import msgspec

from orchestrator import activity

FOLDER_VARIABLE = "ORCHESTRATOR_WORLD"
"""Names the folder; without it, each user has one among the temporary files."""

WORK_S = 0.1
"""How long most activities take: long enough to be seen, and killed, at work."""

LOOK_S = 0.02
"""Who waits for a thing that is held looks again after so long."""

Line = TypeVar("Line", bound=msgspec.Struct)


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """An activity began: which attempt of which run, in which process. Times are Unix milliseconds."""

    activity: str
    key: str
    workflow_id: str
    run_id: str
    attempt: int
    pid: int
    time_ms: int


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """The world changed, at the request of the activity with this idempotency key."""

    effect: str
    key: str
    result: str
    pid: int
    time_ms: int


class World:
    """The world in one folder. Any number of processes may use it, and each may die at any moment."""

    def __init__(self, folder: Path) -> None:
        """Nothing is created before something happens."""
        self.folder = folder
        self._ledger = folder / "ledger.jsonl"
        self._effects = folder / "effects.jsonl"

    def executions(self) -> list[Execution]:
        """Everything that ran, in order."""
        with self._locked(self._ledger) as file:
            return _read(file, Execution)

    def effects(self) -> list[Effect]:
        """Everything that changed, in order."""
        with self._locked(self._effects) as file:
            return _read(file, Effect)

    def note(self, execution: Execution) -> None:
        """An activity begins."""
        with self._locked(self._ledger) as file:
            _append(file, execution)

    def once(self, effect: Effect) -> str:
        """Have an effect, unless its key had one before; returns the result that the key has.

        To look and to write are one step here, as they are in the database of a good provider.
        """
        with self._locked(self._effects) as file:
            for known in _read(file, Effect):
                if known.key == effect.key:
                    return known.result
            _append(file, effect)
        return effect.result

    @contextmanager
    def held(self, thing: str) -> Iterator[None]:
        """Nobody gets a thing of the world inside this block; see :func:`until_free`.

        If the process dies in it, the thing is held until somebody else has held it and let it go.
        """
        mark = self._mark(thing)
        self.folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)

    def is_held(self, thing: str) -> bool:
        """Whether somebody holds a thing of the world."""
        return self._mark(thing).exists()

    def _mark(self, thing: str) -> Path:
        return self.folder / f"{thing}.held"

    @contextmanager
    def _locked(self, path: Path) -> Iterator[BinaryIO]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+b", buffering=0) as file:  # O_APPEND
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def here() -> World:
    """The world that this process lives in."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return World(
        Path(folder) if folder else Path(tempfile.gettempdir()) / f"orchestrator-world-{os.getuid()}"
    )


async def work() -> None:
    """Begin the running activity, which leaves a line in the ledger, and take some time."""
    about = activity.info()
    here().note(
        Execution(
            activity=about.activity_type,
            key=about.idempotency_key,
            workflow_id=about.workflow_id,
            run_id=about.run_id,
            attempt=about.attempt,
            pid=os.getpid(),
            time_ms=_now_ms(),
        )
    )
    await asyncio.sleep(WORK_S)


async def until_free(thing: str) -> None:
    """Wait while somebody holds a thing of the world that the running activity needs."""
    world = here()
    while world.is_held(thing):  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)


def is_first_execution() -> bool:
    """Whether the running activity, which has begun, was never begun before; for what fails only once."""
    key = activity.info().idempotency_key
    return sum(execution.key == key for execution in here().executions()) == 1


def change(effect: str, result: str = "") -> str:
    """Change the world once for the running activity, however often it is repeated."""
    key = activity.info().idempotency_key
    return here().once(Effect(effect=effect, key=key, result=result, pid=os.getpid(), time_ms=_now_ms()))


def exists(thing: str) -> bool:
    """Whether somebody made a thing, which is the result of a change."""
    return any(effect.result == thing for effect in here().effects())


def undo(thing: str, effect: str) -> None:
    """Take a thing back; whoever never made it has nothing to take back, and that is fine."""
    if exists(thing):
        change(f"{thing} {effect}")


def _read(file: BinaryIO, kind: type[Line]) -> list[Line]:
    file.seek(0)
    return [msgspec.json.decode(line, type=kind) for line in _whole(file.read()).splitlines()]


def _append(file: BinaryIO, line: msgspec.Struct) -> None:
    file.seek(0)
    found = file.read()
    if len(whole := _whole(found)) < len(found):
        file.truncate(len(whole))
    file.write(msgspec.json.encode(line) + b"\n")


def _whole(found: bytes) -> bytes:
    """Without a line that was cut short: whoever wrote it was killed, and did not go on after it."""
    return found[: found.rfind(b"\n") + 1]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
