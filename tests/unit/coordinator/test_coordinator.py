"""The loop's own duties: schemas on ``meta``, what peers can run, and what the engine itself fails on."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.coordinator import command_queue, coordinator, ownership
from orchestrator.coordinator.ownership import ACK_DEADLINE_S, IDLE_S, LEAVE_S, OUTBID_WAIT_S, Phase
from orchestrator.coordinator.turn import TurnMaker
from orchestrator.log import simulated
from orchestrator.log.schemas import SCHEMA_KEY
from orchestrator.log.topics import COMMANDS, HISTORY, META, WORKERS
from orchestrator.protocol.commands import WorkflowCommand
from orchestrator.protocol.records import Claim, HistoryRecord, Marks, Position, history_key
from orchestrator.protocol.tasks import CoordinatorBeat
from orchestrator.store.fold import MAX_AWAY_MS

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
    learnt: list[str] = []
    monkeypatch.setattr(avro, "register", lambda schema, number: learnt.append(schema))
    newer = json.dumps({"type": "record", "name": "X"})
    bench.land(META, newer.encode(), SCHEMA_KEY + b"7")
    bench.restart()
    assert newer in learnt


def test_a_newer_versions_schema_is_learnt_when_it_comes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt: list[str] = []
    monkeypatch.setattr(avro, "register", lambda schema, number: learnt.append(schema))
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


# ------------------------------------------------------------------------------ to another coordinator


def decide(bench: Bench, *commands: WorkflowCommand) -> None:
    """Turns are made, and are not sent yet: the next poll does that."""
    bench.put(*commands)
    bench.until(lambda: bench.partition.ownership.in_flight > 0)


def test_what_was_decided_is_answered_before_a_process_ends(bench: Bench) -> None:
    """And no later: who asked would have to ask again, seconds later."""
    decide(bench, start())
    bench.coordinator.finish()
    assert [reply.request_id for reply in bench.replies] == ["start"]
    bench.begin()
    assert len(bench.turns) == 1


def test_what_comes_back_after_anothers_claim_is_not_answered(bench: Bench) -> None:
    decide(bench, start())
    other = Claim(epoch=2, nonce="another", owner="other", generation=1, time_ms=0)
    bench.land(HISTORY, avro.encode(other), history_key(other))
    bench.coordinator.finish()
    assert bench.replies == []


def leave_with_an_answer_under_way(bench: Bench, after: HistoryRecord) -> None:
    """The next poll brings the news that this process is to leave, its turn, and what landed after it."""
    decide(bench, start())
    log = bench.coordinator._log
    assert isinstance(log, simulated.SimulatedMember)
    log.exchange()
    bench.land(HISTORY, avro.encode(after), history_key(after))
    log.leave()


def test_what_comes_back_together_with_anothers_claim_is_answered(bench: Bench) -> None:
    """It lies before that claim: it counts."""
    other = Claim(epoch=2, nonce="another", owner="other", generation=1, time_ms=0)
    leave_with_an_answer_under_way(bench, other)
    bench.step()
    assert bench.coordinator.partitions == {}
    bench.coordinator.finish()
    assert [reply.request_id for reply in bench.replies] == ["start"]


def test_a_store_never_says_that_it_has_what_it_lacks(bench: Bench) -> None:
    """A process that leaves reads its own turn and a late one of somebody else, and dies over it."""
    late = Position(epoch=0, seq=1, marks=Marks(), sent_through=-1, time_ms=0)
    leave_with_an_answer_under_way(bench, late)

    def die(point: str) -> None:
        if point == "read-back":
            raise KeyboardInterrupt

    bench.runtime.hook = die
    with pytest.raises(KeyboardInterrupt):
        bench.step()
    bench.runtime.hook = lambda point: None
    bench.crash()
    bench.begin()
    bench.send(signal("note", "x"))
    assert bench.words()[-1] == "done: WorkflowSignaled WorkflowCompleted"


def test_who_was_paused_while_it_left_waits_for_nothing(bench: Bench) -> None:
    decide(bench, start())
    bench.cluster.faults = msgspec.structs.replace(CALM, delayed=1.0)
    bench.coordinator._log.leave()
    bench.step()
    assert bench.partition.ownership.phase is Phase.LEAVING
    bench.runtime.elapsed_s += 60
    bench.step()
    assert bench.coordinator.partitions == {}
    assert bench.replies == []


def test_nobody_waits_for_long_for_what_does_not_come_back(bench: Bench) -> None:
    decide(bench, start())
    bench.cluster.faults = msgspec.structs.replace(CALM, delayed=1.0)

    def pass_time(point: str) -> None:
        bench.runtime.elapsed_s += 0.1

    bench.runtime.hook = pass_time
    before_s = bench.runtime.elapsed_s
    bench.coordinator.finish()
    assert bench.replies == []
    assert LEAVE_S < bench.runtime.elapsed_s - before_s < LEAVE_S + 1


def test_a_partition_that_comes_back_at_once_is_owned_anew(bench: Bench) -> None:
    decide(bench, start())
    bench.cluster.faults = msgspec.structs.replace(CALM, delayed=1.0)
    bench.coordinator._log.leave()
    bench.step()
    assert bench.partition.ownership.phase is Phase.LEAVING
    bench.cluster.faults = CALM
    bench.coordinator._log.join()
    bench.until(lambda: bench.partition.ownership.running)
    bench.settle()
    assert len(bench.turns) == 1


# ------------------------------------------------------------------------------ a store and its history


def other_history(bench: Bench, records: int) -> None:
    """As if the topic had been made anew, by others: a claim, and positions of its owner."""
    log = bench.cluster.partition(HISTORY, 0)
    log.keep(lambda record: False)
    log.end = 0
    other = Claim(epoch=1, nonce="another", owner="other", generation=0, time_ms=0)
    bench.land(HISTORY, avro.encode(other), history_key(other))
    for seq in range(1, records):
        position = Position(epoch=1, seq=seq, marks=Marks(commands=1), sent_through=-1, time_ms=0)
        bench.land(HISTORY, avro.encode(position), history_key(position))


@pytest.mark.parametrize(("records", "reason"), [(1, "history ends at"), (50, "another record at")])
def test_a_store_that_does_not_fit_history_is_rebuilt(
    bench: Bench, caplog: pytest.LogCaptureFixture, records: int, reason: str
) -> None:
    bench.send(start())
    bench.coordinator.finish()
    other_history(bench, records)
    bench.begin()
    assert reason in caplog.text
    assert bench.partition.store.latest_run_id("a") is None
    bench.send(start("b", "b"))
    assert bench.partition.store.latest_run_id("b") is not None
    before = caplog.text.count("is rebuilt")
    bench.restart()
    assert caplog.text.count("is rebuilt") == before, "now it fits"


def test_a_store_that_was_away_for_longer_than_tombstones_are_kept_is_rebuilt(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.send(start(), start("b", "b"))
    bench.pass_s(2)
    gone = bench.turns[0]
    bench.crash()
    bench.runtime.elapsed_s += MAX_AWAY_MS / 1_000 + 10
    log = bench.cluster.partition(HISTORY, 0)
    log.keep(lambda record: record.key != history_key(gone))  # its tombstone came and went meanwhile
    bench.land(HISTORY, avro.encode(position(9)), history_key(position(9)))
    bench.begin()
    assert "tombstones may be missed" in caplog.text
    assert [bench.partition.store.latest_run_id(name) for name in ("a", "b")] == [
        None,
        bench.turns[-1].run_id,
    ]


def position(seq: int) -> Position:
    return Position(epoch=1, seq=seq, marks=Marks(), sent_through=-1, time_ms=0)


def test_a_partition_that_is_never_idle_lets_go_of_its_commands_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator, "DELETE_EVERY", 10)
    bench.send(start())
    for n in range(200):
        bench.put(signal("note", str(n)))
        bench.runtime.elapsed_s += 0.5
        bench.step(2)
    commands = bench.cluster.partition(COMMANDS, 0)
    assert commands.end - 12 <= commands.read(0, 1)[0].offset <= bench.partition.marks.commands


def test_the_group_is_asked_once_per_step_while_it_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question takes seconds: the partitions that are well would be claimed anew, as after a pause."""
    bench = Bench(tmp_path, Order, partitions=4)
    for number in range(3):
        other = Claim(epoch=2, nonce="another", owner="other", generation=1, time_ms=0)
        bench.land(HISTORY, avro.encode(other), history_key(other), partition=number)
    bench.step(2)
    asked: list[int] = []

    def ask(partition: int) -> bool:
        asked.append(partition)
        bench.runtime.elapsed_s += 2
        return False

    monkeypatch.setattr(bench.coordinator._log, "confirm_membership", ask)
    bench.runtime.elapsed_s += OUTBID_WAIT_S[1]
    for found in bench.coordinator.partitions.values():
        found.now_s = bench.runtime.elapsed_s
    bench.step()
    assert len(asked) == 1


@pytest.mark.parametrize("limit", ["MAX_WAITING", "MAX_WAITING_BYTES"])
def test_commands_that_cannot_be_decided_stay_in_the_log(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    bench.send(start())
    monkeypatch.setattr(command_queue, limit, 20)
    monkeypatch.setattr(simulated, "POLL_RECORDS", 10)
    bench.cluster.stalled = True
    bench.put(signal("note", "first"))
    bench.step()
    monkeypatch.setattr(ownership, "MAX_IN_FLIGHT_TURNS", 1)
    bench.put(*(signal("note", str(n)) for n in range(200)))
    pending = 0
    for _ in range(30):
        bench.step()
        pending = max(pending, len(bench.partition.commands.waiting))
    assert 0 < pending <= 30
    bench.cluster.stalled = False
    bench.settle()
    assert len(bench.replies) == 202
    assert bench.partition.marks.commands == bench.cluster.partition(COMMANDS, 0).end
