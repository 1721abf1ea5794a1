"""What reaches a coordinator from outside of its inputs: time, chance, threads, and the points of a step."""

from __future__ import annotations

import platform
import random
import threading
from collections.abc import Callable
from time import monotonic, time_ns
from typing import Protocol

STEP_POINTS = (
    "polled",
    "read-back",
    "applied",
    "released",
    "decided",
    "appended",
    "claimed",
    "owned",
    "published",
)
"""The places of a step at which a test may end or pause the process. What a crash there means:

- ``polled``: nothing was done with what was polled; it is read again;
- ``read-back``: turns are committed, the store does not have them yet; it reads them again;
- ``applied``: the store has them, nothing has left; the next owner sends it;
- ``released``: everything has left; whatever was not acknowledged is sent again, receivers deduplicate;
- ``decided``: turns exist in memory only; their commands are decided again;
- ``appended``: turns are under way; they count if they land before the next claim;
- ``claimed``: a claim is under way; the next one is higher;
- ``owned``: the claim is read back; nothing was decided under it;
- ``published``: business events are on users' topics, and the mark says so; only their rows are left over.
"""


class Repeated(Protocol):
    """Work for a thread of its own, in steps that may block."""

    def step(self) -> float:
        """Do one thing; returns the seconds to wait before the next, if nobody wakes it."""

    def close(self) -> None:
        """Called once, in the same thread, after the last step."""


class Loop(Protocol):
    """A thread that repeats something."""

    def wake(self) -> None:
        """Do not wait before the next step."""

    def end(self, wait_s: float = 0.0) -> None:
        """Begin no further step. Waits for the one that is being done, for at most ``wait_s``."""


class Runtime(Protocol):
    """Clock, chance and hooks. In production the machine's; in a simulation all from one seed."""

    @property
    def random(self) -> random.Random:
        """The source of chance."""

    def wall_ms(self) -> int:
        """The machine's clock, Unix milliseconds."""

    def monotonic_s(self) -> float:
        """Seconds that only grow."""

    def at(self, point: str) -> None:
        """Called at each of ``STEP_POINTS``; tests end or pause the process here."""

    def repeat(self, name: str, work: Repeated) -> Loop:
        """Repeat something in a thread of its own until it is told to end."""


class SystemRuntime:
    """The machine's clock and chance."""

    def __init__(self, at: Callable[[str], None] | None = None) -> None:
        """``at`` is called at each of ``STEP_POINTS``."""
        # Seeded by the system, but not asked of it each time: that takes as long as to write three texts.
        self._random = random.Random(random.SystemRandom().getrandbits(256))
        self._at = at

    @property
    def random(self) -> random.Random:
        """The machine's chance."""
        return self._random

    def wall_ms(self) -> int:
        """The machine's clock."""
        return time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """The machine's monotonic clock."""
        return monotonic()

    def at(self, point: str) -> None:
        """A point of a step is reached."""
        if self._at is not None:
            self._at(point)

    def repeat(self, name: str, work: Repeated) -> Loop:
        """A thread, which does not keep the process alive."""
        return ThreadLoop(name, work)


class ThreadLoop:
    """Implements :class:`Loop`."""

    def __init__(self, name: str, work: Repeated) -> None:
        """Begin."""
        self._work = work
        self._ended = False
        self._woken = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Do not wait before the next step."""
        self._woken.set()

    def end(self, wait_s: float = 0.0) -> None:
        """Begin no further step."""
        self._ended = True
        self._woken.set()
        if wait_s:
            self._thread.join(wait_s)

    def _run(self) -> None:
        try:
            while not self._ended:
                wait_s = self._work.step()
                if wait_s > 0:
                    self._woken.wait(wait_s)
                self._woken.clear()
        finally:
            self._work.close()


def new_id(runtime: Runtime) -> str:
    """32 hexadecimal digits: the time in milliseconds (12), then chance. Sorts by time."""
    return f"{runtime.wall_ms():012x}{runtime.random.getrandbits(80):020x}"


PYTHON_VERSION = ".".join(platform.python_version_tuple()[:2])


class EngineClock:
    """Engine time: never goes back, and a fast clock of a former owner never freezes timers.

    Now is the larger of the wall clock and the last known time plus what has elapsed since.
    """

    def __init__(self, runtime: Runtime) -> None:
        """Begin at the wall clock."""
        self._runtime = runtime
        self._base_ms = runtime.wall_ms()
        self._base_s = runtime.monotonic_s()

    def now_ms(self) -> int:
        """Engine time, Unix milliseconds."""
        elapsed_ms = int((self._runtime.monotonic_s() - self._base_s) * 1_000)
        return max(self._runtime.wall_ms(), self._base_ms + elapsed_ms)

    def observe(self, time_ms: int) -> None:
        """A record of history was written at this time: engine time is not below it."""
        if time_ms > self.now_ms():
            self._base_ms, self._base_s = time_ms, self._runtime.monotonic_s()
