"""What the roles do to their process, seen from outside where it ends the process."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import process
from orchestrator.cli.process import HangWatch, Pulse, settle_collector

HANGS = """
import sys
from orchestrator.cli import process
process.HUNG_AFTER_S = 0.1
def native_code_that_holds_the_interpreter():
    sys.stdin.read()
process.HangWatch().at("begin")
native_code_that_holds_the_interpreter()
"""

SEEDED = """
import json, os, sys
from orchestrator.cli.process import fix_hash_seed
print("start")
fix_hash_seed()
print(json.dumps([os.environ["PYTHONHASHSEED"], hash("a"), sys.argv[1:], sys.flags.dev_mode]))
"""


def test_a_process_that_hangs_ends_with_the_stacks_of_its_threads() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HANGS], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as hung:
        assert hung.wait(30) == 1
        assert hung.stderr is not None
        stacks = hung.stderr.read()
    assert stacks.startswith("Timeout (0:00:00.100000)!")
    assert "in native_code_that_holds_the_interpreter" in stacks


@pytest.fixture
def armed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the interpreter is asked for."""
    asked: list[str] = []
    clock = iter([10.0, 10.5, 11.1, 11.2, 99.0])

    def arm(timeout: float, *, exit: bool) -> None:
        assert exit
        asked.append(f"end in {timeout:g} s")

    monkeypatch.setattr(faulthandler, "dump_traceback_later", arm)
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: asked.append("do not"))
    monkeypatch.setattr(process.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys, "gettrace", lambda: None)
    return asked


def test_each_turn_of_the_loop_puts_the_end_off_at_most_once_per_second(armed: list[str]) -> None:
    watch = HangWatch()
    for _ in range(4):
        watch.at("poll")
    assert armed == ["end in 30 s"] * 2
    watch.stop()
    watch.at("poll")
    assert armed[2:] == ["do not"], "what was stopped is not armed again"


def test_a_debugger_may_stop_the_loop(armed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "gettrace", lambda: print)
    HangWatch().at("poll")
    assert armed == []


async def test_a_loop_that_is_blocked_is_said_to_be_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, beats = 100.0, asyncio.Event()
    monkeypatch.setattr(process, "PULSE_S", 0.0)
    pulse = Pulse(lambda: now_s)
    now_s += 30.0
    assert pulse.why_dead == ""
    now_s += 9.0
    assert pulse.why_dead == "the event loop has not turned for 39 s: an async activity blocks it"
    asyncio.get_running_loop().call_later(0.01, beats.set)
    await beats.wait()
    assert pulse.why_dead == "", "it turns again"
    pulse.stop()


@pytest.mark.parametrize("given", [{}, {"PYTHONHASHSEED": "7"}, {"PYTHONHASHSEED": "0"}])
def test_the_process_runs_again_with_a_fixed_hash_seed(given: dict[str, str], tmp_path: Path) -> None:
    """Once, and as it was called."""
    script = tmp_path / "script.py"
    script.write_text(SEEDED)
    surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}

    def answer() -> tuple[int, Any]:
        command = [sys.executable, "-X", "dev", str(script), "an argument", "-x"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=surroundings | given)
        *starts, said = done.stdout.splitlines()
        return len(starts), json.loads(said)

    starts, (seed, hashed, arguments, dev_mode) = answer()
    assert starts == (1 if given == {"PYTHONHASHSEED": "0"} else 2)
    assert (seed, arguments, dev_mode) == ("0", ["an argument", "-x"], True)
    assert answer()[1][1] == hashed


class Node:
    """Something that can be in a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_what_exists_is_looked_at_no_more() -> None:
    settle_collector()
    assert gc.get_freeze_count() > 1_000
    assert len(gc.get_objects()) < 1_000


def test_garbage_in_cycles_is_still_collected() -> None:
    settle_collector()
    gone = weakref.ref(Node())
    kept = [Node() for _ in range(100_000)]
    assert gone() is None
    assert len(kept) == 100_000
