"""The watchdog beside user code: an activation that does not give way is evicted.

User code runs on the coordinator's own thread: handing each batch to another one and back costs two
thread switches per step (measured: 130 to 180 µs together, as much as deciding five commands). What
watches is a thread of its own. An activation that takes more than ``WALL_LIMIT_S`` of time *and*
``CPU_LIMIT_S`` of its thread's CPU is evicted: the API raises ``Evicted`` in whatever it calls or awaits,
and the same is raised asynchronously in code that does neither, again and again, until it gives way; its
run is blocked and the batch goes on. If it swallows even that, the coordinator's thread is given up as a
whole: its successor claims the partitions anew and blocks the run, and the process should end soon: a thread
that spins slows all others.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable
from time import clock_gettime, monotonic, pthread_getcpuclockid, sleep
from typing import Protocol, TypeVar

from orchestrator.workflow.loop import Evicted

log = logging.getLogger(__name__)

T = TypeVar("T")

WALL_LIMIT_S = 2.0
"""Temporal's deadlock detector; user code between two awaits has no business to take longer."""

CPU_LIMIT_S = 1.0
"""A machine that was busy elsewhere is no reason to evict: the code itself must have burnt this much."""

ABANDON_AFTER_S = 3.0
"""For so long, and for as much CPU as above, ``Evicted`` is raised again in code that swallows it. Both count
from the first one: on a machine that is busy elsewhere, the code may not have come to notice it."""

_TICK_S = 0.1
"""How late an eviction may be: well below ``WALL_LIMIT_S``, and rare enough to cost nothing."""


class Watched(Protocol):
    """A run whose code is entered."""

    @property
    def workflow_id(self) -> str:
        """Which one. Not its run id: a start that was not committed is decided again, with another one."""

    def evict(self) -> None:
        """Let the API refuse its code everything from now on. Called on the watchdog's thread."""


class Watch(Protocol):
    """Watches user code: what takes too long gets ``Evicted`` raised in it."""

    def begin(self, run: Watched) -> None:
        """User code of a run is entered."""

    def end(self) -> None:
        """User code was left. Raises ``Evicted`` if that was on its way; then it is to be called again."""


def under(watch: Watch, run: Watched, call: Callable[[], T]) -> T:
    """Enter user code under a watch; whatever is raised, the code was left and the watch has ended."""
    watch.begin(run)
    try:
        return call()
    finally:
        try:
            watch.end()
        except Evicted:  # it was on its way when the code was left
            watch.end()
            raise


class Abandoned(SystemExit):
    """This thread was given up while it was in user code; another one has taken its place."""


class Watchdog:
    """Watches the activations of one thread.

    ``Evicted`` is raised only between :meth:`begin` and :meth:`end`: both take the lock under which it is
    sent, so it surfaces in ``end`` at the latest, never in the engine's own code.
    """

    def __init__(self, on_hung: Callable[[str], None]) -> None:
        """``on_hung`` is called once, on the watchdog's thread, with the id whose code cannot be evicted.

        From then on the watched thread is given up: should it come back, it ends.
        """
        self._on_hung = on_hung
        self._given_up = False
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._run: Watched | None = None
        self._entries = 0
        self._watched = 0
        self._sent = False
        self._thread: threading.Thread | None = None
        # What the watchdog's thread saw last: which entry, since when, and the CPU time used until then;
        # when it was first evicted, 0.0 if it was not, and the CPU time used until then.
        self._seen = 0
        self._since_s = 0.0
        self._since_cpu_s = 0.0
        self._evicted_s = 0.0
        self._evicted_cpu_s = 0.0

    def begin(self, run: Watched) -> None:
        """User code of a run is entered, on the calling thread. Costs next to nothing: no clock is read."""
        if self._thread is None:
            self._watched = threading.get_ident()
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()
        self._entries += 1
        self._run = run

    def end(self) -> None:
        """User code was left. Raises ``Evicted`` if that was on its way; then it is to be called again."""
        with self._lock:
            self._run = None
        while self._sent:  # on its way to this thread: let it surface here
            self._sent = False
            sleep(0)
        if self._given_up:
            raise Abandoned

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(_TICK_S):
            hung = ""
            try:
                with self._lock:
                    hung = self._evict_if_overdue()
                    self._given_up = bool(hung)
            except Exception:  # whatever it was, watching must go on
                log.exception("the watchdog failed, and goes on")
            if hung:
                self._on_hung(hung)
                return

    def _evict_if_overdue(self) -> str:
        """Raise ``Evicted`` in an overdue activation; its workflow id if that has been of no use."""
        run = self._run
        if run is None:
            return ""
        cpu_s, now_s = clock_gettime(pthread_getcpuclockid(self._watched)), monotonic()
        if self._seen != self._entries:
            self._seen, self._since_s, self._since_cpu_s = self._entries, now_s, cpu_s
            self._evicted_s = 0.0
            return ""
        if now_s - self._since_s <= WALL_LIMIT_S or cpu_s - self._since_cpu_s <= CPU_LIMIT_S:
            return ""
        if not self._evicted_s:
            self._evicted_s, self._evicted_cpu_s = now_s, cpu_s
        elif now_s - self._evicted_s > ABANDON_AFTER_S and cpu_s - self._evicted_cpu_s > CPU_LIMIT_S:
            return run.workflow_id
        self._sent = True
        run.evict()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._watched), ctypes.py_object(Evicted))
        return ""


class Unwatched:
    """No watchdog: for simulations, whose workflows are known to give way."""

    def begin(self, run: Watched) -> None:
        """User code of a run is entered."""

    def end(self) -> None:
        """User code was left."""

    def stop(self) -> None:
        """Nothing to stop."""
