"""What reaches a coordinator from outside of its inputs: time, chance, threads, and the points of a step."""

from __future__ import annotations

import platform
import random
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
)
"""The places of a step at which a test may end or pause the process. What a crash there means:

- ``polled``: nothing was done with what was polled; it is read again;
- ``read-back``: turns are committed, the store does not have them yet; it reads them again;
- ``applied``: the store has them, nothing has left; the next owner sends it;
- ``released``: everything has left; whatever was not acknowledged is sent again, receivers deduplicate;
- ``decided``: turns exist in memory only; their commands are decided again;
- ``appended``: turns are under way; they count if they land before the next claim;
- ``claimed``: a claim is under way; the next one is higher;
- ``owned``: the claim is read back; nothing was decided under it.
"""


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


class SystemRuntime:
    """The machine's clock and chance."""

    def __init__(self, at: Callable[[str], None] | None = None) -> None:
        """``at`` is called at each of ``STEP_POINTS``."""
        self._random = random.SystemRandom()
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
