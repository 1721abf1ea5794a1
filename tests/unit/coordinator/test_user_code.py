"""Entering user code: what blocks a run, what it is told then, and replays."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from orchestrator import workflow
from orchestrator.coordinator import runs, user_code
from orchestrator.protocol import commands as c
from orchestrator.workflow.loop import Evicted

from .kit import Bench, Runtime, pay, query, signal, start
from .orders import FixedOrder, Order, OtherOrder, blocks, terminate


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Order)


# ------------------------------------------------------------------------------------ blocked runs


def test_a_bug_blocks_the_run_once_per_reason_and_keeps_its_facts(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("stumble"), signal("note", "x"))
    assert bench.words()[1:] == ["deferred: WorkflowSignaled WorkflowSignaled WorkflowBlocked"]
    bench.pass_s(30)
    bench.send(signal("note", "y"))
    bench.pass_s(30)
    assert blocks(bench) == ["a bug"]
    assert bench.words()[2:] == ["deferred: WorkflowSignaled"]


def test_another_reason_is_told(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Order)
    bench.send(start())
    bench.send(signal("stumble"))
    bench.restart(OtherOrder)
    bench.settle()
    assert len(blocks(bench)) == 2
    assert "history has nothing, the code made timer 1" in blocks(bench)[1]


def due_s(bench: Bench) -> float:
    """When the blocked run is tried next."""
    found = bench.partition.retries.next_s
    assert found is not None
    return found


@workflow.defn(name="Spins")
class Spins:
    """Takes two seconds, and is evicted."""

    clock: Runtime
    entered = 0

    @workflow.run
    async def run(self) -> None:
        Spins.entered += 1
        Spins.clock.elapsed_s += 1.8
        raise Evicted


@pytest.fixture
def spinning(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path, Order, Spins)
    Spins.clock, Spins.entered = bench.runtime, 0
    return bench


def spins(count: int) -> list[c.StartWorkflow]:
    return [start(f"spin-{n}", f"s{n}", workflow_type="Spins") for n in range(count)]


def test_code_that_spins_is_no_pause_of_the_process(spinning: Bench) -> None:
    """Longer than a pause that costs the claims, and shorter than what the group takes for a death."""
    spinning.send(*spins(3), start("fine", "fine"))
    spinning.send(signal("finish", workflow_id="fine"))
    assert len(spinning.claims) == 1
    assert len(blocks(spinning)) == 3
    assert spinning.reply("fine").rejection == ""


def test_one_blocked_run_is_tried_per_step(spinning: Bench) -> None:
    """What else there is to do waits for one of them, not for all."""
    spinning.send(*spins(5))
    spinning.runtime.elapsed_s += 60
    spinning.step()
    spinning.until(lambda: spinning.partition.ownership.running)
    before = Spins.entered
    for count in range(1, 4):
        spinning.step()
        assert Spins.entered == before + count


def test_what_is_known_of_blocked_runs_outlives_claims(spinning: Bench) -> None:
    """They would all be tried at once after it, and that might cost the next claim."""
    spinning.send(*spins(5))
    for _ in range(100):
        spinning.pass_s(1)
    spinning.settle()
    before = Spins.entered
    spinning.coordinator._incident(spinning.partition, "a test says so")
    spinning.until(lambda: spinning.partition.ownership.running)
    spinning.step(10)
    assert Spins.entered <= before + 1
    before = Spins.entered
    spinning.restart()
    spinning.step(10)
    assert Spins.entered >= before + 5, "a new process tries each at once"


def test_a_blocked_run_is_tried_again_with_growing_delays(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("stumble"))
    run = bench.partition.runs.get("a")
    assert run is not None
    delays = []
    for _ in range(12):
        delays.append(due_s(bench) - bench.runtime.elapsed_s)
        bench.pass_s(delays[-1] + 0.1)
    assert [round(delay) for delay in delays] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]


def test_a_run_that_is_blocked_for_weeks_goes_on_being_tried(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("stumble"))
    run = bench.partition.runs.get("a")
    assert run is not None
    bench.partition.retries._delays[run.state.run_id].tries = 5_000
    bench.pass_s(2)
    assert due_s(bench) - bench.runtime.elapsed_s == pytest.approx(600, abs=2)
    assert len(bench.claims) == 1


def test_fixed_code_goes_on_with_all_facts_in_order_in_one_activation(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("note", "x"))
    bench.send(signal("stumble"))
    bench.send(signal("note", "y"))
    bench.restart(FixedOrder)
    bench.send(query("all"))
    assert bench.words()[-1] == "done: WorkflowUnblocked"
    assert bench.value("query") == ["run", "x", "fixed a bug", "y"]
    bench.restart(FixedOrder)
    bench.send(query("all", request_id="q2"))
    assert bench.value("q2") == bench.value("query")


def test_others_of_the_same_step_go_on(bench: Bench) -> None:
    bench.send(start("a"), start("b", "b"))
    bench.send(signal("stumble"), signal("note", "x", workflow_id="b"))
    bench.send(query("all", "b"))
    assert bench.value("query") == ["run", "x"]


@workflow.defn(name="Order")
class Vicious:
    """Raises what no code should, where it is asked to."""

    @workflow.run
    async def run(self, where: str, kind: str) -> None:
        self.where, self.kind = where, kind
        await workflow.wait_condition(lambda: self.at("condition"))

    def at(self, where: str) -> bool:
        if where == self.where:
            raise getattr(builtins, self.kind)("a vicious end")
        return False

    @workflow.signal
    def told(self) -> None:
        self.at("signal")

    @workflow.query
    def asked(self) -> bool:
        return self.at("query")


@pytest.mark.parametrize("kind", ["KeyboardInterrupt", "SystemExit", "GeneratorExit", "BaseException"])
@pytest.mark.parametrize("where", ["condition", "signal", "query"])
def test_whatever_code_raises_the_engine_goes_on(tmp_path: Path, where: str, kind: str) -> None:
    bench = Bench(tmp_path, Vicious)
    bench.send(start(input=pay(where, kind)))
    bench.send(signal("told"))
    bench.send(query("asked"))
    failure = bench.reply("query").failure
    assert failure is not None
    assert "a vicious end" in (failure.cause or failure).message
    assert blocks(bench) == ([] if where == "query" else ["a vicious end"])


def test_a_blocked_run_answers_queries_with_the_reason(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("stumble"))
    bench.send(query("all"))
    failure = bench.reply("query").failure
    assert failure is not None
    assert "is blocked" in failure.message
    assert failure.cause is not None
    assert failure.cause.message == "a bug"


def test_a_blocked_run_can_be_terminated(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("stumble"))
    bench.send(terminate())
    bench.pass_s(5)
    assert bench.words()[2:] == ["none: WorkflowTerminated"]


def test_a_suspect_is_blocked_without_being_entered(bench: Bench) -> None:
    bench.send(start())
    bench.restart(suspects=(bench.turns[0].workflow_id,))
    bench.send(signal("note", "x"))
    assert bench.words()[1:] == ["deferred: WorkflowSignaled WorkflowBlocked"]


# ------------------------------------------------------------------------------------------ replay


def test_code_that_no_longer_follows_history_is_blocked_with_both_sides(bench: Bench) -> None:
    bench.send(start())
    bench.restart(OtherOrder)
    bench.send(signal("note", "x"))
    assert "turn 1" in blocks(bench)[0]
    assert "history has nothing, the code made timer 1" in blocks(bench)[0]


def test_a_query_that_cannot_be_replayed_spoils_nothing(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("note", "x"))
    bench.restart(OtherOrder)
    bench.send(query("all"))
    failure = bench.reply("query").failure
    assert failure is not None
    assert "timer 1" in failure.message
    bench.send(signal("note", "y"))
    assert "timer 1" in blocks(bench)[0]
    assert len(bench.letters) == 0
    bench.restart(FixedOrder)
    bench.send(query("all", request_id="q2"))
    assert bench.value("q2") == ["run", "x", "y"]


def test_a_type_that_is_gone_blocks(bench: Bench) -> None:
    bench.send(start())

    @workflow.defn(name="Another")
    class Another(Order):
        @workflow.run
        async def run(self) -> list[str]:
            return []

    bench.restart(Another)
    bench.send(signal("note", "x"))
    assert "no workflow type 'Order'" in blocks(bench)[0]


def test_a_long_replay_is_sliced_and_facts_wait_in_order(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.send(start())
    for n in range(6):
        bench.send(signal("note", str(n)))
    bench.restart()
    monkeypatch.setattr(user_code, "REPLAY_SLICE_S", -1.0)  # one turn per slice
    bench.send(signal("note", "x"))
    bench.send(signal("note", "y"))
    told = bench.words()[7:]
    assert told[0] == "deferred: WorkflowSignaled"
    assert told[-1].startswith("done:")
    bench.send(query("all"))
    assert bench.value("query") == ["run", *"012345", "x", "y"]


def test_a_query_sees_facts_that_wait_for_a_replay(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.send(start())
    for n in range(3):
        bench.send(signal("note", str(n)))
    bench.restart()
    monkeypatch.setattr(user_code, "REPLAY_SLICE_S", -1.0)
    bench.put(signal("note", "x"))
    for n in range(8):
        bench.put(query("all", request_id=f"q{n}"))
        bench.step()
    bench.settle()
    answered = [reply for reply in bench.replies if reply.request_id.startswith("q")]
    assert answered
    for reply in answered:
        assert bench.value(reply.request_id) == ["run", *"012", "x"]


def test_an_instance_that_was_let_go_is_replayed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.partition.runs, "_limit", 1)
    assert runs.MAX_RUNS_IN_MEMORY > 1
    bench.send(start("a"), start("b", "b"))
    bench.send(signal("note", "x"))
    bench.send(signal("note", "x", workflow_id="b"))
    bench.send(query("all"), query("all", "b", "qb"))
    assert bench.value("query") == bench.value("qb") == ["run", "x"]
    assert len(list(bench.partition.runs._runs.values())) <= 2
