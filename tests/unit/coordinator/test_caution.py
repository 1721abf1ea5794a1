"""Code that ends the process is found, blocked and shown; all others go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.coordinator.watchdog import Unwatched, Watched
from orchestrator.log.topics import WORKERS
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Position
from orchestrator.protocol.tasks import CoordinatorBeat
from orchestrator.protocol.values import WorkflowStatus

from .kit import Bench, pay, signal, start

DEADLY: set[str] = set()
"""Workflow ids whose code ends the process when it is entered."""


class ProcessDies(BaseException):
    """The process is gone: nothing of the engine runs any more."""


class Deadly(Unwatched):
    """Stands where user code is entered."""

    def begin(self, run: Watched) -> None:
        if run.workflow_id in DEADLY:
            raise ProcessDies


@workflow.defn(name="Order")
class Order:
    @workflow.run
    async def run(self, sleep_s: float = 0.0) -> None:
        if sleep_s:
            await workflow.sleep(sleep_s)

    @workflow.signal
    def poke(self) -> None:
        pass


class Lives(Bench):
    """A bench whose process is started again when it has died."""

    deaths = 0

    def settle(self) -> None:
        for _ in range(10):
            try:
                super().settle()
                return
            except ProcessDies:
                self.die()
        raise AssertionError("it dies for ever")

    def pass_s(self, seconds: float) -> None:
        until_s = self.runtime.elapsed_s + seconds
        while self.runtime.elapsed_s < until_s:
            self.runtime.elapsed_s += 1
            try:
                self.coordinator.step()
            except ProcessDies:
                self.die()
        self.settle()

    def die(self) -> None:
        self.deaths += 1
        while True:
            self.crash()
            try:
                self.begin()
                return
            except ProcessDies:
                self.deaths += 1
                assert self.deaths < 20, "it dies for ever"

    def status(self, workflow_id: str) -> WorkflowStatus:
        state = self.partition.latest_state(workflow_id)
        assert state is not None
        return state.status

    def trials(self) -> list[str]:
        return [record.trying for record in self.history if isinstance(record, Position) and record.trying]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lives:
    DEADLY.clear()
    DEADLY.add("x")
    monkeypatch.setattr(Bench, "options", {"workers_end_with_log": True, "watch": Deadly()})
    return Lives(tmp_path, Order)


def others(bench: Lives) -> list[Any]:
    return [start(f"o{n}", f"o{n}") for n in range(5)]


@pytest.mark.parametrize("place", [0, 3, 5])
def test_a_start_that_ends_the_process_is_blocked_and_all_others_finish(bench: Lives, place: int) -> None:
    commands = others(bench)
    commands.insert(place, start("x", "x"))
    bench.send(*commands)
    assert 3 <= bench.deaths <= 5
    assert bench.status("x") is WorkflowStatus.BLOCKED
    assert [bench.status(f"o{n}") for n in range(5)] == [WorkflowStatus.COMPLETED] * 5
    state = bench.partition.latest_state("x")
    assert state is not None
    assert state.blocked is not None
    assert (state.blocked.type, state.run_id in state.blocked.message) == ("ProcessEnded", True)
    bench.send(start("x", "x"))  # its answer may have died with the process: the client asks again
    assert bench.reply("x").run_id == state.run_id
    bench.send(start("later", "later"))
    bench.pass_s(100)
    assert bench.status("later") is WorkflowStatus.COMPLETED
    assert bench.deaths <= 5, "it is not tried again under this owner"


def test_a_timer_that_ends_the_process(bench: Lives) -> None:
    DEADLY.clear()
    bench.send(start("x", "x", input=pay(5.0)), start("y", "y", input=pay(5.0)))
    DEADLY.add("x")
    bench.pass_s(20)
    assert (bench.status("x"), bench.status("y")) == (WorkflowStatus.BLOCKED, WorkflowStatus.COMPLETED)


def test_each_trial_is_announced_before_its_code_is_entered(bench: Lives) -> None:
    bench.send(start("x", "x"), start("o", "o"))
    x, o = (bench.partition.latest_state(name) for name in ("x", "o"))
    assert x is not None
    assert o is not None
    assert bench.trials().count(x.run_id) == 2
    assert bench.trials().count(o.run_id) == 1


def test_after_the_next_start_it_is_tried_once_more(bench: Lives) -> None:
    bench.send(start("x", "x"))
    bench.pass_s(5)
    before = bench.deaths
    try:
        bench.restart()
        bench.pass_s(5)
    except ProcessDies:
        bench.die()
    bench.pass_s(10)
    assert bench.deaths == before + 1
    assert bench.status("x") is WorkflowStatus.BLOCKED


def test_fixed_code_goes_on(bench: Lives) -> None:
    bench.send(start("x", "x"))
    bench.pass_s(5)
    DEADLY.clear()
    bench.restart()
    bench.pass_s(5)
    assert bench.status("x") is WorkflowStatus.COMPLETED
    kinds = [type(event) for turn in bench.turns for event in turn.events]
    assert kinds == [e.WorkflowStarted, e.WorkflowBlocked, e.WorkflowUnblocked, e.WorkflowCompleted]


def test_it_can_be_terminated(bench: Lives) -> None:
    bench.send(start("x", "x"))
    bench.send(c.TerminateWorkflow(workflow_id="x", request_id="t"))
    assert bench.status("x") is WorkflowStatus.TERMINATED


def test_one_death_may_be_chance(bench: Lives) -> None:
    DEADLY.clear()
    bench.send(start("x", "x", input=pay(5.0)))
    DEADLY.add("x")
    bench.runtime.elapsed_s += 1
    run = bench.partition.latest_state("x")
    assert run is not None
    while bench.trials().count(run.run_id) < 1:
        bench.deaths = 0
        bench.runtime.elapsed_s += 5
        try:
            bench.step()
        except ProcessDies:
            bench.crash()
            try:
                bench.begin()
            except ProcessDies:
                continue
    DEADLY.clear()
    bench.pass_s(10)
    assert bench.status("x") is WorkflowStatus.COMPLETED


def test_many_restarts_of_an_idle_engine_cost_nothing(bench: Lives) -> None:
    for _ in range(4):
        bench.crash()
        bench.begin()
    bench.send(start("a", "a"), signal("poke", workflow_id="a"))
    assert bench.trials() == []
    assert bench.status("a") is WorkflowStatus.COMPLETED


def test_a_death_counts_only_if_that_owner_is_gone(bench: Lives, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its beats say so: it may be slow, and have lost the partition only."""
    monkeypatch.setattr(Bench, "options", {"watch": Deadly()})
    bench.restart()
    bench.put(start("x", "x"), start("o", "o"))
    owners: list[str] = []

    def beats() -> None:
        for owner in owners:
            beat = CoordinatorBeat(coordinator=owner, identity="", number=1, partitions=())
            bench.land(WORKERS, avro.encode(beat))

    for _ in range(200):
        bench.runtime.elapsed_s += 0.5
        beats()
        try:
            bench.step()
        except ProcessDies:
            owners.append(bench.coordinator.incarnation)
            bench.crash()
            bench.begin()
    state = bench.partition.latest_state("x")
    assert state is not None
    assert bench.trials().count(state.run_id) == 2, "it is not tried again either"
    assert (bench.status("x"), bench.status("o")) == (WorkflowStatus.RUNNING, WorkflowStatus.COMPLETED)
    for _ in range(20):
        bench.runtime.elapsed_s += 0.5
        bench.step()
    assert bench.status("x") is WorkflowStatus.BLOCKED
