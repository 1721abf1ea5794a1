"""Large turns in parts, restores, incidents, and what is kept in memory ahead of the store."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.coordinator import ownership, partition
from orchestrator.coordinator import turn as turn_making
from orchestrator.engine import decider
from orchestrator.engine.state import Changes, RunState
from orchestrator.log import simulated
from orchestrator.log.faults import Fate
from orchestrator.log.topics import HISTORY, TASKS
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Claim, HistoryRecord, Marks, Turn, history_key
from orchestrator.protocol.tasks import Reply
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.refusals import KEPT_MS

from .kit import TO_ME, Bench, query, report, signal, start

WIDTH = 40


@workflow.defn(name="Order")
class FanOut:
    """Many activities at once: a large turn."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @workflow.run
    async def run(self) -> int:
        made = [workflow.execute_activity("pay", n, schedule_to_close_timeout=600) for n in range(WIDTH)]
        return len(await asyncio.gather(*made))

    @workflow.signal
    def note(self, word: str) -> None:
        self.notes.append(word)

    @workflow.query
    def all(self) -> list[str]:
        return self.notes


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(partition, "MAX_PART_BYTES", 1_000)
    return Bench(tmp_path, FanOut)


def fold(turns: list[Turn]) -> RunState:
    state: RunState | None = None
    for turn in turns:
        state = decider.evolve(state, turn, Changes())
    assert state is not None
    return state


def run_of(bench: Bench) -> str:
    found = bench.partition.store.latest_run_id("a")
    assert found is not None
    return found


def check_one_large_turn(bench: Bench) -> None:
    """The store holds the turn once and whole, and the state is its fold."""
    store = bench.partition.store
    turns = list(store.turns(run_of(bench)))
    assert [(turn.turn, turn.first_event_id, len(turn.events)) for turn in turns] == [(1, 1, WIDTH + 1)]
    assert store.state(run_of(bench)) == fold(turns)
    assert bench.partition.history.parts.open == ()
    assert bench.partition.store.checkpoint.parts == ()


def test_a_large_turn_is_written_in_parts_and_applied_as_one(bench: Bench) -> None:
    bench.send(start())
    parts = bench.turns
    assert len(parts) >= 3
    assert [part.part for part in parts] == list(range(len(parts)))
    assert [part.parts for part in parts] == [0] * (len(parts) - 1) + [len(parts)]
    assert [part.seq for part in parts] == list(range(parts[0].seq, parts[0].seq + len(parts)))
    assert [bool(part.causes) for part in parts] == [False] * (len(parts) - 1) + [True]
    firsts = [part.first_event_id for part in parts]
    assert firsts == [1 + sum(len(p.events) for p in parts[:k]) for k in range(len(parts))]
    check_one_large_turn(bench)


def test_a_store_rebuilt_from_parts_is_the_same(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.send(start())
    before = bench.partition.store.state(run_of(bench))
    monkeypatch.setattr(ownership, "RESTORE_SLICE_RECORDS", 1)  # a checkpoint after each part
    bench.partition.store.wipe()
    bench.restart()
    check_one_large_turn(bench)
    assert bench.partition.store.state(run_of(bench)) == before


@pytest.mark.parametrize("how", ["incident", "crash"])
def test_a_turn_that_landed_before_the_next_claim_counts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Part 0 was read back and is in the checkpoint; the others are found while the claim is under way."""
    bench.put(start())
    monkeypatch.setattr(simulated, "POLL_RECORDS", 1)
    bench.until(lambda: bench.partition.history.parts.open != ())
    if how == "incident":
        bench.coordinator._incident(bench.partition, "a test says so")
    else:
        bench.partition.store.close()
        bench.runtime.elapsed_s += 10  # the group gives up the dead member
        bench.begin()
    bench.settle()
    assert len(bench.claims) == 2
    assert [part.part for part in bench.turns].count(0) == 1, "it was decided again"
    check_one_large_turn(bench)
    bench.send(query("all"))
    assert bench.value("query") == []


def test_a_turn_of_which_a_part_is_missing_at_the_next_claim_is_void(bench: Bench) -> None:
    bench.hook.fates[HISTORY] = [Fate.LAND, Fate.LOSE]
    bench.send(start())
    assert len(bench.claims) == 2
    assert [turn.part for turn in bench.turns].count(0) == 2, "the first try has left its part 0"
    check_one_large_turn(bench)
    assert {reply.run_id for reply in bench.replies} == {run_of(bench)}


def large_turn(epoch: int) -> list[Turn]:
    """Three parts of a run's first turn."""
    events = (e.WorkflowStarted(workflow_type="Order"), e.WorkflowSignaled(signal_name="note"))
    return [
        Turn(
            epoch=epoch,
            seq=part + 1,
            marks=Marks(),
            sent_through=-1,
            time_ms=1,
            workflow_id="x",
            run_id="f" * 32,
            turn=1,
            first_event_id=part + 1,
            activation=Activation.DEFERRED,
            events=(events[min(part, 1)],),
            part=part,
            parts=3 if part == 2 else 0,
        )
        for part in range(3)
    ]


def claim(epoch: int) -> Claim:
    return Claim(epoch=epoch, nonce=f"n{epoch}", owner="other", generation=1, time_ms=0)


FIVE, SIX = large_turn(5), large_turn(6)
HISTORIES: dict[str, tuple[list[HistoryRecord], bool]] = {
    "all parts before the next claim": ([claim(5), *FIVE, claim(6)], True),
    "a claim in the midst": ([claim(5), *FIVE[:2], claim(6), FIVE[2]], False),
    "parts of two claims": ([claim(5), *FIVE[:2], claim(6), SIX[2]], False),
    "begun under one claim, whole under the next": ([claim(5), *FIVE[:2], claim(6), *SIX], True),
    "a part is missing": ([claim(5), FIVE[0], FIVE[2]], False),
    "the first part is missing": ([claim(5), *FIVE[1:]], False),
    "the last part is missing": ([claim(5), *FIVE[:2]], False),
}


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("slice_records", [1, 500])
def test_whether_a_turn_in_parts_counts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str, slice_records: int
) -> None:
    monkeypatch.setattr(ownership, "RESTORE_SLICE_RECORDS", slice_records)
    records, counts = HISTORIES[name]
    bench.coordinator.close()
    for record in records:
        bench.land(HISTORY, avro.encode(record), history_key(record))
    bench.begin()
    stored = list(bench.partition.store.turns("f" * 32))
    assert [len(turn.events) for turn in stored] == ([3] if counts else [])


# ----------------------------------------------------------------------------------------- incidents


@pytest.mark.parametrize("fate", [Fate.LOSE, Fate.LAND_UNSEEN, Fate.REFUSE])
def test_an_incident_loses_no_command_and_decides_none_twice(bench: Bench, fate: Fate) -> None:
    bench.send(start())
    bench.hook.fates[HISTORY] = [fate]
    bench.send(*(signal("note", str(n)) for n in range(3)))
    bench.send(query("all"))
    assert bench.value("query") == ["0", "1", "2"]
    state = bench.partition.store.state(run_of(bench))
    assert state == fold(list(bench.partition.store.turns(run_of(bench))))
    for n in range(3):
        bench.send(signal("note", str(n)))
    bench.send(query("all", request_id="q2"))
    assert bench.value("q2") == ["0", "1", "2"]


def test_what_a_dropped_partition_had_reserved_is_free_again(bench: Bench) -> None:
    bench.beat(slots=WIDTH // 2)
    bench.send(start())
    before = len(bench.tasks)
    bench.coordinator._incident(bench.partition, "a test says so")
    bench.settle()
    worker = bench.coordinator._dispatcher._workers["w1"]
    assert len(worker.open) == before == WIDTH // 2
    assert [found.waiting for found in bench.coordinator._dispatcher.backlogs()] == [WIDTH - before]


@pytest.mark.parametrize("fate", [Fate.LOSE, Fate.LAND_UNSEEN])
def test_a_task_that_may_not_have_left_is_sent_again(bench: Bench, fate: Fate) -> None:
    bench.beat(slots=1)
    bench.hook.fates[TASKS] = [fate]
    bench.send(start())
    deliveries = {(task.activity_id, task.attempt, task.dispatch) for task in bench.tasks}
    assert deliveries == {(1, 1, 1)}
    assert bench.partition.outflow.sent_through >= 0
    bench.beat(slots=1, running=0)
    bench.send(report(bench.tasks[0]))
    assert len({task.activity_id for task in bench.tasks}) == 2


def test_slots_balance_over_a_whole_run(bench: Bench) -> None:
    bench.beat(slots=7)
    bench.send(start())
    done: set[int] = set()
    for _ in range(3 * WIDTH):
        todo = [task for task in bench.tasks if task.activity_id not in done]
        if not todo:
            break
        done.add(todo[0].activity_id)
        bench.send(report(todo[0]))
    assert done == set(range(1, WIDTH + 1))
    assert bench.coordinator._dispatcher._workers["w1"].open == set()
    assert bench.coordinator._dispatcher.backlogs() == ()
    assert not bench.partition.store.state(run_of(bench)).is_open  # type: ignore[union-attr]


# --------------------------------------------------------------------------------------- waiting clients


def await_result(request_id: str, **fields: Any) -> c.AwaitResult:
    return c.AwaitResult(workflow_id="a", request_id=request_id, reply_to=TO_ME, **fields)


def test_who_waits_hears_of_the_close_once_it_is_committed(bench: Bench) -> None:
    bench.send(start(), await_result("w1"))
    assert [reply for reply in bench.replies if reply.request_id == "w1"] == []
    bench.send(c.TerminateWorkflow(workflow_id="a", reason="why", request_id="t"), await_result("w2"))
    bench.send(await_result("w3"), await_result("w4", run_id=run_of(bench)))
    for request_id in ("w1", "w2", "w3", "w4"):
        reply = bench.reply(request_id)
        assert reply.failure is not None
        assert (reply.status, reply.failure.message) == ("Terminated", "why")


def test_who_waits_for_nothing_is_refused(bench: Bench) -> None:
    bench.send(await_result("w1"))
    assert bench.reply("w1").rejection == "workflow-not-found"


def test_a_store_stands_where_history_does(bench: Bench) -> None:
    bench.send(start(), signal("note", "x"))
    offset = bench.partition.store.checkpoint.offset
    assert offset == bench.cluster.partition(HISTORY, 0).end
    folder = bench.partition.store.folder
    bench.coordinator.close()
    store = PartitionStore(folder, log_id="log")
    assert store.checkpoint.offset == offset
    assert store.checkpoint.marks.commands == 2
    store.close()


# ------------------------------------------------------------------------------------ repeated requests


def repeat(bench: Bench, *commands: c.Command) -> list[Reply]:
    """The answers to repeats, without what says where they stand."""
    before = len(bench.replies)
    bench.send(*commands)
    return [msgspec.structs.replace(reply, offset=-1) for reply in bench.replies[before:]]


def test_a_repeat_is_answered_as_the_original_was_after_a_takeover_too(bench: Bench) -> None:
    commands = [
        start(),
        signal("note", "x"),
        c.TerminateWorkflow(workflow_id="a", request_id="t", reply_to=TO_ME),
        start(request_id="again"),
        c.CancelWorkflow(workflow_id="a", request_id="c", reply_to=TO_ME),
    ]
    answered = [reply for command in commands for reply in repeat(bench, command)]
    turns = len(bench.turns)
    assert [reply for command in commands for reply in repeat(bench, command)] == answered
    bench.partition.store.wipe()  # another owner has none of it but history
    bench.restart()
    assert [reply for command in commands for reply in repeat(bench, command)] == answered
    assert len(bench.turns) == turns


def test_a_refused_request_is_refused_by_the_same_owner_for_a_while(bench: Bench) -> None:
    early = signal("note", "x")
    (refused,) = repeat(bench, early)
    assert refused.rejection == "workflow-not-found"
    bench.send(start())
    assert repeat(bench, early) == [refused]
    bench.restart()
    assert repeat(bench, early) == [refused]
    bench.pass_s(KEPT_MS / 1_000)
    assert list(bench.partition.store.refusals(b"")) == []
    bench.send(start(request_id="again"))
    assert [reply.rejection for reply in repeat(bench, early)] == [""]


def test_a_refused_request_may_be_decided_anew_after_a_takeover(bench: Bench) -> None:
    early = signal("note", "x")
    repeat(bench, early)
    bench.send(start())
    bench.partition.store.wipe()
    bench.restart()
    assert [reply.rejection for reply in repeat(bench, early)] == [""]


def test_the_oldest_request_ids_are_forgotten_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turn_making, "MAX_REQUESTS", 10)
    bench.send(start())
    store = bench.partition.store
    kept = []
    for n in range(25):
        if n == 12:
            bench.restart()  # they are counted anew
            store = bench.partition.store
        bench.send(signal("note", str(n)))
        bench.pass_s(1)
        kept.append(store.count_requests("a"))
    assert max(kept) == 10
    assert min(kept[5:]) >= 5
    turns = len(bench.turns)
    assert [reply.rejection for reply in repeat(bench, signal("note", "24"))] == [""]
    assert len(bench.turns) == turns, "the newest are remembered"
    bench.send(signal("note", "0"))
    assert len(bench.turns) == turns + 1, "the oldest are not"


def test_the_limit_of_request_ids_is_that_of_all_runs_of_an_id(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turn_making, "MAX_REQUESTS", 10)
    for n in range(15):
        bench.send(start(request_id=f"s{n}"), c.TerminateWorkflow(workflow_id="a", request_id=f"t{n}"))
        bench.pass_s(1)
        assert bench.partition.store.count_requests("a") <= 10


# ------------------------------------------------------------------------- what the log does not take


@workflow.defn(name="Large")
class Large:
    """Answers with more than the log takes, when it is told to."""

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: hasattr(self, "size"))
        return "x" * self.size

    @workflow.signal
    def end(self, size: int, padding: str = "") -> None:
        self.size = size


def test_a_run_whose_turn_the_log_refuses_is_blocked_and_others_go_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FanOut, Large)
    bench.cluster.max_record_bytes = 2_000
    names = [f"w{n}" for n in range(20)]
    bench.send(*(start(name, name, workflow_type="Large") for name in [*names, "big"]))
    bench.put(*(signal("end", 1, workflow_id=name, request_id=f"e-{name}") for name in names[:10]))
    bench.put(signal("end", 3_000, workflow_id="big"))
    bench.send(*(signal("end", 1, workflow_id=name, request_id=f"e-{name}") for name in names[10:]))
    states = {name: bench.partition.latest_state(name) for name in [*names, "big"]}
    assert [states[name].status.value for name in names] == ["Completed"] * 20  # type: ignore[union-attr]
    big = states["big"]
    assert big is not None
    assert big.blocked is not None
    assert (big.blocked.type, "at most 2000 are allowed" in big.blocked.message) == ("RecordRefused", True)
    assert len(bench.claims) <= 1 + partition.MAX_REFUSALS
    bench.pass_s(60)
    assert len(bench.claims) <= 1 + partition.MAX_REFUSALS, "it does not go on like that"


def test_a_command_that_the_log_refuses_with_its_turn_is_set_aside(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FanOut, Large)
    bench.send(start("big", "big", workflow_type="Large"))
    bench.cluster.max_record_bytes = 2_000
    large = signal("end", 1, "x" * 1_900, workflow_id="big", request_id="large")
    bench.send(large, start("w", "w", workflow_type="Large"))
    assert bench.reply("large").rejection == "engine-failed"
    assert bench.reply("w").run_id
    assert "at most 2000 are allowed" in bench.partition.poisoned["big"]
