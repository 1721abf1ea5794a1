"""Coroutines that are no longer wanted, and some that do not want to end."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import types
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.workflow.closing import MAX_CLOSE_ATTEMPTS, close_coroutine

CLINGS = """
import asyncio

seen = []

class Clings:
    async def run(self):
        event = asyncio.Event()
        while True:
            try:
                await event.wait()
            except BaseException:
                seen.append("clung")
"""

CLOSES = """
import asyncio, ctypes, clings
from orchestrator.workflow import closing

loop = asyncio.new_event_loop()
asyncio._set_running_loop(loop)
coroutine = clings.Clings().run()
coroutine.send(None)
closing.close_coroutine(coroutine)
asyncio._set_running_loop(None)
loop.close()
del coroutine
for module in (clings, closing):  # as in a large program, where modules are emptied while they are in use
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(module))
print(len(clings.seen))
"""


@types.coroutine
def wait() -> Generator[None, None, None]:
    yield


async def outer(seen: list[str], times: int) -> None:
    try:
        await inner(seen, times)
    finally:
        seen.append("outer")


async def inner(seen: list[str], times: int) -> None:
    for _ in range(times):
        try:
            await wait()
        finally:
            seen.append("inner")
            await wait()


@pytest.mark.parametrize(("times", "seen"), [(1, ["inner", "outer"]), (0, [])])
def test_finally_blocks_run_inside_out_whatever_they_await(times: int, seen: list[str]) -> None:
    found: list[str] = []
    coroutine = outer(found, times)
    if times:
        coroutine.send(None)
    close_coroutine(coroutine)
    assert coroutine.cr_frame is None
    assert found == seen


def test_what_is_no_coroutine_is_left_alone() -> None:
    future: Any = asyncio.Future(loop=asyncio.new_event_loop())
    future.get_loop().close()
    close_coroutine(future)
    close_coroutine(None)


def test_code_that_clings_is_left_alone_by_the_interpreter_too(tmp_path: Path) -> None:
    """Its end does not close it again, and prints what comes of that."""
    (tmp_path / "clings.py").write_text(CLINGS)
    done = subprocess.run(
        [sys.executable, "-c", CLOSES], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{MAX_CLOSE_ATTEMPTS}\n", "")


def test_a_coroutine_that_ends_is_not_kept() -> None:
    coroutine = outer([], 1)
    coroutine.send(None)
    close_coroutine(coroutine)
    gc.collect()
    assert sys.getrefcount(coroutine) == 2
