"""What the roles of the command line do to their process."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from orchestrator.cli import exits

HUNG_AFTER_S = 30.0
"""A coordinator's loop, which turns at least once per second, has not turned for so long: native code in
a workflow holds the interpreter's lock, and nothing in this process can end it but its end."""

STUCK_AFTER_S = 30.0
"""An event loop that turns once per second has not turned for so long: an activity blocks it. That may end,
but the worker was taken for dead long before, and its activities run elsewhere.
"""

LOOK_S = 0.2
"""How often a role looks whether all is well."""

NOT_OWNED = "partitions are being restored or claimed"
"""Why a role that decides is not ready, as a rule for seconds."""

PULSE_S = 1.0
"""How often a loop shows that it turns."""

_REARM_S = 1.0
"""Arming starts a thread, so it is not done at every step."""

_YOUNG_OBJECTS = 20_000
"""Python's default is 700: with 500 workflows in flight, each collection finds that nearly all of its objects
are still in use, and looking cost an eighth of all time. So many are some megabytes."""


def fix_hash_seed() -> None:
    """Run this process again with ``PYTHONHASHSEED=0``, unless it is: sets of workflow code must iterate
    in the same order when they are replayed.
    """
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def stop_on_signals() -> asyncio.Event:
    """Set by the first SIGINT or SIGTERM; the second one ends the process as usual."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal() -> None:
        stop.set()
        for number in signals:
            loop.remove_signal_handler(number)

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    return stop


async def until_stopped(stop: asyncio.Event, trouble: Callable[[], str]) -> str:
    """Wait for ``stop``, or until ``trouble()`` says what is wrong; returns that, "" if nothing is."""
    while not stop.is_set():
        if found := trouble():
            return found
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await stop.wait()
    return ""


class Pulse:
    """Whether the event loop in which it is made turns, for other threads to see."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._loop, self._now_s = asyncio.get_running_loop(), now_s
        self._beat()

    def _beat(self) -> None:
        self._turned_s = self._now_s()
        self._next = self._loop.call_later(PULSE_S, self._beat)

    @property
    def why_dead(self) -> str:
        """That it is stuck; "" if it turns."""
        silent_s = self._now_s() - self._turned_s
        if silent_s <= STUCK_AFTER_S:
            return ""
        return f"the event loop has not turned for {silent_s:.0f} s: an async activity blocks it"

    def stop(self) -> None:
        """The loop ends."""
        self._next.cancel()


def stopped_server(http: asyncio.Task[None]) -> str:
    """What is wrong with an HTTP server that should go on; "" if nothing is."""
    return f"the HTTP server has stopped: {http.exception()!r}" if http.done() else ""


def end_process(broken: str = "") -> NoReturn:
    """End this process at once, and say what is broken, if something is.

    Threads of activities that do not end, or that read for somebody who is gone, would keep it alive; what
    matters is in the log.
    """
    from orchestrator.telemetry.tracing import flush  # late: a process that begins anew imports little before

    code = exits.tell(broken, exits.ERROR) if broken else exits.OK
    flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def settle_collector() -> None:
    """Call this once a role is up: what exists now stays, and is not looked at by the collector again.

    An engine leaves little garbage in cycles, and has many young objects that are all in use.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)


class HangWatch:
    """Ends the process, with the stacks of all threads on stderr, when :meth:`at` is not called for long."""

    def __init__(self) -> None:
        # A debugger stops threads for as long as it likes.
        self._off = sys.gettrace() is not None or "debugpy" in sys.modules
        self._armed_s = float("-inf")

    def at(self, point: str) -> None:
        """The coordinator's loop turns; or, at ``published``, another thread's, which says nothing of it."""
        now_s = time.monotonic()
        if not self._off and point != "published" and now_s - self._armed_s > _REARM_S:
            self._armed_s = now_s
            faulthandler.dump_traceback_later(HUNG_AFTER_S, exit=True)

    def stop(self) -> None:
        """The loop ends."""
        self._off = True
        faulthandler.cancel_dump_traceback_later()
