"""The loop's own duties: schemas on ``meta``, what peers can run, and what the engine itself fails on."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.coordinator.ownership import ACK_DEADLINE_S, IDLE_S
from orchestrator.coordinator.turn import TurnMaker
from orchestrator.log.schemas import SCHEMA_KEY
from orchestrator.log.topics import META, WORKERS
from orchestrator.protocol.tasks import CoordinatorBeat

from .kit import CALM, Bench, signal, start


@workflow.defn(name="Order")
class Order:
    def __init__(self) -> None:
        self.words: list[str] = []

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: len(self.words) > 0)
        return self.words

    @workflow.signal
    def note(self, word: str) -> None:
        self.words.append(word)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Order)


def schemas_on_meta(bench: Bench) -> dict[bytes, bytes | None]:
    return {record.key: record.value for record in bench.cluster.partition(META, 0).read(0, 100)}


def test_our_schemas_are_left_for_other_versions_once(bench: Bench) -> None:
    bench.settle()
    bench.restart()
    bench.settle()
    records = bench.cluster.partition(META, 0).read(0, 100)
    expected = {SCHEMA_KEY + str(number).encode() for number, _ in avro.DEFAULT.schemas().values()}
    assert sorted(record.key for record in records) == sorted(expected)


def test_a_newer_versions_schema_is_learnt_at_the_start(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avro, "register", (learnt := []).append)
    newer = json.dumps({"type": "record", "name": "X"})
    bench.land(META, newer.encode(), SCHEMA_KEY + b"7")
    bench.restart()
    assert newer in learnt


def test_a_newer_versions_schema_is_learnt_when_it_comes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(avro, "register", (learnt := []).append)
    newer = json.dumps({"type": "record", "name": "X"})
    for _ in range(2):
        bench.land(META, newer.encode(), SCHEMA_KEY + b"7")
        bench.settle()
    assert learnt == [newer]


def test_a_schema_that_is_none_is_passed_over(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.land(META, b"\xff", SCHEMA_KEY + b"7")
    bench.restart()
    assert "is of no use" in caplog.text


def test_a_start_of_a_type_that_only_a_peer_knows_is_recorded_and_waits(bench: Bench) -> None:
    peer = CoordinatorBeat(coordinator="peer", identity="", number=1, partitions=(), workflow_types=("New",))
    bench.land(WORKERS, avro.encode(peer))
    bench.settle()
    bench.send(start(workflow_type="New"))
    assert bench.reply("start").run_id
    assert bench.words() == ["deferred: WorkflowStarted"]


def test_it_runs_when_its_code_has_come(bench: Bench) -> None:
    @workflow.defn(name="New")
    class New:
        @workflow.run
        async def run(self) -> str:
            return "done"

    test_a_start_of_a_type_that_only_a_peer_knows_is_recorded_and_waits(bench)
    bench.restart(Order, New)
    bench.settle()
    assert bench.words()[-1] == "done: WorkflowCompleted"


def test_a_type_that_nobody_knows_is_refused(bench: Bench) -> None:
    bench.send(start(workflow_type="New"))
    assert bench.reply("start").rejection == "unknown-name"


def test_after_an_idle_hour_the_next_record_comes_under_a_new_claim(bench: Bench) -> None:
    bench.send(start())
    for _ in range(round(IDLE_S / 4) + 2):
        bench.runtime.elapsed_s += 4
        bench.step()
    assert len(bench.claims) == 1
    bench.send(signal("note", "x"))
    assert len(bench.claims) == 2
    assert bench.words()[-1] == "done: WorkflowSignaled WorkflowCompleted"
    assert [turn.epoch for turn in bench.turns] == [1, 2]


@pytest.mark.parametrize("where", ["make", "seal"])
def test_what_the_engine_fails_on_is_set_aside_and_others_go_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "make":
        original = TurnMaker.make

        def make(self: TurnMaker, partition: object, workflow_id: str, *rest: object) -> None:
            if workflow_id == "bad":
                raise ZeroDivisionError("a bug of the engine")
            original(self, partition, workflow_id, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(TurnMaker, "make", make)
    else:
        seal = type(bench.partition).seal

        def broken(self: object, draft: object, *rest: object) -> None:
            if draft.run.state.workflow_id == "bad":  # type: ignore[attr-defined]
                raise ZeroDivisionError("a bug of the engine")
            seal(self, draft, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(type(bench.partition), "seal", broken)
    bench.put(start("good"), start("bad", request_id="bad"))
    bench.until(lambda: len(bench.letters) > 0)
    bench.settle()
    assert bench.reply("bad").rejection == "engine-failed"
    assert "ZeroDivisionError" in bench.letters[0].reason
    bench.send(signal("note", "hello", workflow_id="good"))
    assert bench.words()[-1] == "done: WorkflowSignaled WorkflowCompleted"


def test_the_beats_of_an_outage_do_not_come_in_a_burst(bench: Bench) -> None:
    """Beats are counted as time: workers whose own had no chance would be given up."""
    bench.settle()
    before = beats(bench)
    bench.cluster.stalled = True
    for _ in range(60):
        bench.runtime.elapsed_s += 1
        bench.step()
    bench.cluster.stalled = False
    bench.settle()
    burst = beats(bench) - before
    assert 1 <= burst <= 60 / ACK_DEADLINE_S + 1
    for _ in range(5):
        bench.runtime.elapsed_s += 1
        bench.settle()
    assert beats(bench) - before - burst == 5


def test_who_cannot_tell_the_time_leaves_the_group_until_it_can(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.settle()
    monkeypatch.setattr(bench.cluster, "now_ms", lambda: bench.runtime.wall_ms() - 9_000)
    bench.runtime.elapsed_s += 1
    bench.until(lambda: not bench.coordinator.partitions)
    assert "9.0 s ahead of the log's" in caplog.text
    bench.put(start())
    for _ in range(10):
        bench.runtime.elapsed_s += 1
        bench.step()
    assert not bench.turns, "nothing is decided by a clock that is wrong"

    monkeypatch.undo()
    bench.runtime.elapsed_s += 1
    bench.until(lambda: bool(bench.coordinator.partitions))
    bench.settle()
    assert bench.turns


def beats(bench: Bench) -> int:
    return len(bench.cluster.partition(WORKERS, 0).read(0, 1_000))


@pytest.mark.parametrize("point", ["polled", "claimed"])
def test_a_log_that_does_not_answer_is_asked_again(bench: Bench, point: str) -> None:
    """While history is restored, or while it is reread for what may not have left."""
    deaf = msgspec.structs.replace(CALM, unanswered=1.0)

    def go_deaf(reached: str) -> None:
        if reached == point:
            bench.cluster.faults = deaf

    bench.send(start())
    bench.runtime.hook = go_deaf
    with pytest.raises(AssertionError, match="does not come to that"):
        bench.restart()
    bench.runtime.hook = lambda point: None
    assert not bench.partition.ownership.running
    bench.cluster.faults = CALM
    bench.until(lambda: bench.partition.ownership.running)
    bench.send(signal("note", "x"))
    assert bench.words()[-1] == "done: WorkflowSignaled WorkflowCompleted"
