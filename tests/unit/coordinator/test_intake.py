"""Commands of others' transactions: forwarded, at least once, to where a repeat is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.coordinator import intake
from orchestrator.log import simulated
from orchestrator.log.faults import Fate
from orchestrator.log.topics import COMMANDS, COMMANDS_TX
from orchestrator.protocol import commands as c
from orchestrator.protocol.records import Position, Turn

from .kit import Bench, query, signal, start


@workflow.defn(name="Order")
class Order:
    def __init__(self) -> None:
        self.words: list[str] = []

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    def note(self, word: str) -> None:
        self.words.append(word)

    @workflow.query
    def noted(self) -> list[str]:
        return self.words


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Order)


def commit(bench: Bench, *commands: c.Command) -> None:
    """A transaction with commands is committed."""
    for command in commands:
        bench.land(COMMANDS_TX, avro.encode(command))


def unnamed(word: str) -> c.SignalWorkflow:
    """A signal that is known by its place alone."""
    return c.SignalWorkflow(workflow_id="a", signal_name="note", input=signal("note", word).input)


def mark_in_history(bench: Bench) -> int:
    """The last one, once a second has passed without a turn."""
    bench.pass_s(3)
    return [record for record in bench.history if isinstance(record, Turn | Position)][-1].marks.commands_tx


def words(bench: Bench, request_id: str) -> object:
    bench.send(query("noted", request_id=request_id))
    return bench.value(request_id)


def test_they_are_decided_where_all_are_and_history_says_how_far_they_went(bench: Bench) -> None:
    commit(bench, start(), unnamed("one"), unnamed("two"))
    bench.pass_s(1)
    assert words(bench, "q") == ["one", "two"]
    causes = [cause.request_id for turn in bench.turns for cause in turn.causes]
    assert causes == ["start", "commands-tx-0-1", "commands-tx-0-2"]
    assert mark_in_history(bench) == 3
    landed = bench.cluster.partition(COMMANDS, 0).end
    bench.restart()
    bench.pass_s(3)
    assert bench.cluster.partition(COMMANDS, 0).end == landed, "nothing is forwarded again"


def test_who_dies_before_that_forwards_them_again_to_no_effect(bench: Bench) -> None:
    commit(bench, start(), unnamed("one"))
    bench.until(lambda: bench.cluster.partition(COMMANDS, 0).end == 2)
    bench.crash()
    bench.begin()
    bench.settle()
    assert bench.cluster.partition(COMMANDS, 0).end == 4
    assert words(bench, "q") == ["one"]
    assert mark_in_history(bench) == 2


def test_what_is_no_command_is_set_aside_and_passed(bench: Bench) -> None:
    bench.land(COMMANDS_TX, b"garbage")
    commit(bench, c.WorkerLost(worker="w1", partition=0), start())
    bench.settle()
    assert [(letter.topic, letter.offset) for letter in bench.letters] == [
        ("commands-tx", 0),
        ("commands-tx", 1),
    ]
    assert "only coordinators can know" in bench.letters[1].reason
    assert len(bench.turns) == 1
    assert mark_in_history(bench) == 3


def test_the_mark_waits_for_the_acknowledgement(bench: Bench) -> None:
    bench.send(start())
    bench.hook.fates[COMMANDS] = [Fate.REFUSE]
    commit(bench, unnamed("one"), unnamed("two"))
    bench.cluster.stalled = True
    bench.step(5)
    assert bench.partition.intake.mark == 0
    bench.cluster.stalled = False
    bench.settle()
    assert "it cannot be forwarded" in bench.letters[0].reason
    assert words(bench, "q") == ["two"]
    assert mark_in_history(bench) == 2


def test_no_more_are_under_way_than_memory_is_meant_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "MAX_HELD", 20)
    monkeypatch.setattr(simulated, "POLL_RECORDS", 10)
    bench.send(start())
    bench.cluster.stalled = True
    commit(bench, *(unnamed(str(n)) for n in range(200)))
    most = 0
    for _ in range(30):
        bench.step()
        most = max(most, len(bench.partition.intake.held))
    assert 0 < most <= 30
    bench.cluster.stalled = False
    bench.until(lambda: bench.partition.intake.mark == 200, 1_000)
    bench.settle()
    assert words(bench, "q") == [str(n) for n in range(200)]
