"""The disposable thread that user code runs on, and the watchdog beside it.

An activation that takes more than ``WALL_LIMIT_S`` of time *and* ``CPU_LIMIT_S`` of its thread's CPU has
``Evicted`` raised in it, again and again, until it gives way; its run is blocked and the batch goes on.
One that swallows even that is abandoned with its thread.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from typing import TypeVar, cast

from orchestrator.workflow.loop import Evicted

WALL_LIMIT_S = 2.0
"""Temporal's deadlock detector; user code between two awaits has no business to take longer."""

CPU_LIMIT_S = 1.0
"""A machine that was busy elsewhere is no reason to evict: the code itself must have burnt this much."""

ABANDON_AFTER_S = 3.0
"""For so long ``Evicted`` is raised again in code that swallows it."""

_TICK_S = 0.05

T = TypeVar("T")


class TurnHung(Exception):
    """The thread was abandoned inside the code of a run; nothing of the batch can be used."""

    def __init__(self, run_id: str) -> None:
        """``run_id`` is the run whose code does not give way."""
        super().__init__(f"the code of run {run_id} does not give way; its thread was abandoned")
        self.run_id = run_id


class TurnThread:
    """Runs batches of turns, one at a time, on a thread that can be given up."""

    def __init__(self) -> None:
        """The thread starts with the first batch."""
        self._lock = threading.Lock()
        self._run_id = ""
        self._since_s = 0.0
        self._since_cpu_s = 0.0
        self._thread: _Thread | None = None

    def begin(self, run_id: str) -> None:
        """User code of a run is entered (called on the turn thread)."""
        with self._lock:
            self._since_s, self._since_cpu_s = time.monotonic(), time.thread_time()
            self._run_id = run_id

    def end(self) -> None:
        """User code was left (called on the turn thread)."""
        with self._lock:
            self._run_id = ""

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` on the thread and return what it returns; raises ``TurnHung`` if it never does."""
        if self._thread is None:
            self._thread = _Thread()
        thread = self._thread
        thread.submit(work)
        while not thread.done.wait(_TICK_S):
            if hung := self._evict_overdue(thread):
                self._thread = None
                raise TurnHung(hung)
        thread.done.clear()
        if thread.error is not None:
            raise thread.error
        return cast(T, thread.result)

    def stop(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._thread.submit(None)
            self._thread.join()
            self._thread = None

    def _evict_overdue(self, thread: _Thread) -> str:
        """Raise ``Evicted`` in an overdue activation; its run id if even that is of no use."""
        with self._lock:
            if not self._run_id:
                return ""
            wall_s = time.monotonic() - self._since_s
            if wall_s <= WALL_LIMIT_S or thread.cpu_s() - self._since_cpu_s <= CPU_LIMIT_S:
                return ""
            if wall_s > WALL_LIMIT_S + ABANDON_AFTER_S:
                return self._run_id
            ident = ctypes.c_ulong(thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(Evicted))
            return ""


class _Thread(threading.Thread):
    """A thread that runs what it is handed, until it is handed None."""

    def __init__(self) -> None:
        super().__init__(name="turns", daemon=True)
        self.done = threading.Event()
        self.result: object = None
        self.error: BaseException | None = None
        self._work: Callable[[], object] | None = None
        self._handed = threading.Semaphore(0)
        self.start()

    def submit(self, work: Callable[[], object] | None) -> None:
        """Hand over the next piece of work."""
        self._work = work
        self._handed.release()

    def cpu_s(self) -> float:
        """CPU time that this thread has used."""
        assert self.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self.ident))

    def run(self) -> None:
        """Run what is handed over."""
        while True:
            self._handed.acquire()
            if self._work is None:
                return
            try:
                self.result, self.error = self._work(), None
            except BaseException as error:
                self.result, self.error = None, error
            self.done.set()


class InlineTurns:
    """Runs turns on the calling thread, unwatched: for simulations."""

    def begin(self, run_id: str) -> None:
        """User code of a run is entered."""

    def end(self) -> None:
        """User code was left."""

    def call(self, work: Callable[[], T]) -> T:
        """Run ``work`` here."""
        return work()

    def stop(self) -> None:
        """Nothing to end."""
