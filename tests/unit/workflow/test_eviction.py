"""Dropping an instance: finally blocks run, and nothing that they do counts."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import threading
from typing import Any

import pytest
from workflow_kit import Run, completed

from orchestrator import workflow
from orchestrator.workflow.instance import Evicted

seen: list[str] = []


@pytest.fixture(autouse=True)
def _forget() -> None:
    seen.clear()


def attempt(what: str, call: Any) -> None:
    try:
        call()
        seen.append(f"{what} allowed")
    except Evicted:
        seen.append(f"{what} Evicted")


@workflow.defn
class CleansUp:
    @workflow.run
    async def run(self) -> None:
        helper = asyncio.create_task(self.help())
        try:
            await workflow.execute_activity("a", start_to_close_timeout=1)
        except asyncio.CancelledError:
            seen.append("told that it was cancelled")
            raise
        finally:
            attempt("activity", lambda: workflow.start_activity("undo", start_to_close_timeout=1))
            attempt("task", lambda: asyncio.create_task(self.help()))
            attempt("timer", lambda: asyncio.get_running_loop().call_later(1, print))
            attempt("random", workflow.random)
            attempt("tag", lambda: workflow.add_tag("t"))
            workflow.logger.error("not to be seen")
            helper.cancel()
            await workflow.execute_activity("undo", start_to_close_timeout=1)

    async def help(self) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            seen.append("helper closed")


def test_close_runs_finally_with_the_api_disabled(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(CleansUp)
    assert run.start() == ["schedule 1 a", "start timer 1 100000"]
    caplog.set_level(logging.DEBUG)
    run.close()
    assert seen == [
        *["activity Evicted", "task Evicted", "timer Evicted", "random Evicted", "tag Evicted"],
        "helper closed",
    ]
    assert not caplog.records
    with pytest.raises(RuntimeError, match="it was closed"):
        run.tell(completed(1))
    run.close()  # closing twice is harmless
    assert asyncio._get_running_loop() is None


@workflow.defn
class Clings:
    @workflow.run
    async def run(self) -> None:
        event = asyncio.Event()
        while True:
            try:
                await event.wait()
            except BaseException:
                seen.append("clung")


def test_code_that_catches_everything_is_given_up() -> None:
    run = Run(Clings)
    run.start()
    run.close()
    assert seen  # it was tried
    assert len(seen) <= 1_000


@workflow.defn
class NeverStarted:
    @workflow.run
    async def run(self) -> None:
        raise ValueError("halts the loop")

    @workflow.signal
    async def never(self) -> None:
        pass


def test_a_drop_before_anything_ran_prints_nothing() -> None:
    Run(CleansUp).close()


@workflow.defn
class Spins:
    @workflow.run
    async def run(self, how: str) -> None:
        spinning.set()
        if how == "in a task":
            await asyncio.create_task(self.spin())
        elif how == "catching everything":
            while True:
                try:
                    await self.spin()
                except BaseException:
                    await asyncio.sleep(0)
        await self.spin()

    async def spin(self) -> None:
        while True:
            pass


spinning = threading.Event()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("how", ["plain", "in a task", "catching everything"])
def test_a_spinning_activation_is_ended_from_another_thread(how: str) -> None:
    run = Run(Spins, (how,))
    outcome: list[str] = []
    spinning.clear()

    def activate() -> None:
        try:
            run.start()
        except Evicted:
            outcome.append("Evicted")

    thread = threading.Thread(target=activate)
    thread.start()
    assert spinning.wait(10)
    run.instance.evict()
    while thread.is_alive():
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Evicted)
        )
        thread.join(0.05)
    assert outcome == ["Evicted"]
    with pytest.raises(RuntimeError, match="did not end"):
        run.tell()
    run.close()


def test_evicted_is_passed_on_by_tasks_at_once() -> None:
    """``asyncio.Task`` keeps any other BaseException for whoever awaits the task."""
    assert issubclass(Evicted, SystemExit)
