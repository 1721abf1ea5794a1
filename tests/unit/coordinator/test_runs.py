"""Replays while a run is busy, and code that keeps a step busy."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from orchestrator import workflow
from orchestrator.coordinator import user_code
from orchestrator.coordinator.turn import MAX_SETTLES
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e

from .kit import CALM, Bench, query, signal, start


@workflow.defn(name="Order")
class Notes:
    """Collects what it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: "end" in self.seen)

    @workflow.signal
    def note(self, word: str) -> None:
        self.seen.append(word)

    @workflow.query
    def all(self) -> list[str]:
        return self.seen


def test_a_run_whose_turns_are_always_in_flight_is_replayed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_code, "REPLAY_SLICE_S", -1.0)  # one turn per step
    bench = Bench(tmp_path, Notes)
    bench.send(start())
    for n in range(5):
        bench.send(signal("note", f"early-{n}"))
    run = bench.partition.runs.get("a")
    assert run is not None
    bench.partition.runs.drop(run)
    bench.cluster.faults = msgspec.structs.replace(CALM, latency_ms=50)
    told = 0
    for n in range(40):
        bench.put(signal("note", f"late-{n}"))
        for _ in range(2):
            bench.runtime.elapsed_s += 0.005
            bench.step()
        told += run.instance is not None
        assert run.pinned
    assert told, "its code was never told"
    bench.cluster.faults = CALM
    bench.pass_s(1)
    bench.send(query("all"))
    words = bench.value("query")
    assert words == [f"early-{n}" for n in range(5)] + [f"late-{n}" for n in range(40)]


def test_a_query_sees_what_is_in_flight_though_its_run_was_let_go(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Notes)
    bench.send(start())
    bench.cluster.faults = msgspec.structs.replace(CALM, latency_ms=50)
    bench.put(signal("note", "x"))
    bench.step()
    run = bench.partition.runs.get("a")
    assert run is not None
    assert run.pinned
    bench.partition.runs.drop(run)
    bench.put(query("all"))
    bench.step()
    bench.cluster.faults = CALM
    bench.pass_s(1)
    assert bench.value("query") == ["x"]


@workflow.defn(name="Order")
class CancelsForEver:
    """Asks for activities that nobody has, and cancels one whenever another is said to be canceled."""

    @workflow.run
    async def run(self) -> None:
        former = self.begin()
        await asyncio.sleep(0.001)
        while True:
            following = self.begin()
            former.cancel()
            with suppress(asyncio.CancelledError):
                await former
            former = following

    def begin(self) -> workflow.ActivityHandle[object]:
        return workflow.start_activity(
            "pay",
            schedule_to_close_timeout=600,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )


def test_code_that_cancels_for_ever_does_not_keep_others_waiting(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CancelsForEver)
    bench.send(start())
    bench.runtime.elapsed_s += 0.002
    bench.until(lambda: len(bench.turns) > 1)
    steps = [len(bench.turns)]
    for _ in range(3):
        bench.step()
        steps.append(len(bench.turns))
    assert all(0 < after - before <= MAX_SETTLES + 1 for before, after in pairwise(steps))
    bench.put(c.TerminateWorkflow(workflow_id="a", request_id="t"))
    bench.settle()
    closed = bench.turns[-1].events[-1]
    assert isinstance(closed, e.WorkflowTerminated)
