"""Tombstones: for what never counted, for what is superseded, and for runs past their retention."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.coordinator import partition, retention
from orchestrator.coordinator.retention import AGAIN_S, DEFAULT_RETENTION_MS
from orchestrator.log.faults import Fate
from orchestrator.log.topics import HISTORY
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Claim, Marks, Position, Turn, history_key, turn_keys
from orchestrator.protocol.values import IdReusePolicy

from .kit import CALM, TO_ME, Bench, report, signal, start

RETENTION_S = 100.0
AFTER_S = RETENTION_S + 10


@workflow.defn(name="Order")
class Order:
    """Waits for ``finish``; with an argument, for an activity before."""

    def __init__(self) -> None:
        self.done = False

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.done)
        return "x" * 700

    @workflow.signal
    def finish(self) -> None:
        self.done = True

    @workflow.signal
    def note(self, word: str) -> None:
        pass


@workflow.defn(name="Paid")
class Paid:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("pay", schedule_to_close_timeout=60)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(Bench, "options", {"retention_ms": round(RETENTION_S * 1_000)})
    return Bench(tmp_path, Order, Paid)


def tombstones(bench: Bench) -> list[bytes]:
    records = bench.cluster.partition(HISTORY, 0).read(0, 1_000_000)
    return [record.key for record in records if record.value is None]


def compact(bench: Bench) -> None:
    """The cleaner has been everywhere, and has let go of old tombstones too."""
    bench.pass_s(70)
    bench.cluster.clean(HISTORY, 0, up_to=bench.cluster.partition(HISTORY, 0).end)


def rows(bench: Bench) -> list[bytes]:
    """All keys of the store but the checkpoint's."""
    return [key for key, _ in bench.partition.store.scan(b"", b"\xff") if key != b"c"]


def run_closed(bench: Bench, workflow_id: str = "a", prefix: str = "") -> str:
    """A run that was started, signaled and completed."""
    bench.send(start(workflow_id, f"{prefix}start"))
    bench.send(signal("note", "x", workflow_id=workflow_id, request_id=f"{prefix}note"))
    bench.send(signal("finish", workflow_id=workflow_id, request_id=f"{prefix}finish"))
    return bench.turns[-1].run_id


def turn(epoch: int, seq: int, run_id: str = "f" * 32, number: int = 1) -> Turn:
    return Turn(
        epoch=epoch,
        seq=seq,
        marks=Marks(),
        sent_through=-1,
        time_ms=1,
        workflow_id="x",
        run_id=run_id,
        turn=number,
        first_event_id=1,
        activation=Activation.DEFERRED,
        events=(e.WorkflowStarted(workflow_type="Order"),),
    )


def position(epoch: int, seq: int) -> Position:
    return Position(epoch=epoch, seq=seq, marks=Marks(), sent_through=-1, time_ms=1)


def claim(epoch: int) -> Claim:
    return Claim(epoch=epoch, nonce=f"n{epoch}", owner="other", generation=0, time_ms=0)


def land(bench: Bench, *records: Any) -> None:
    for record in records:
        bench.land(HISTORY, avro.encode(record), history_key(record))


# -------------------------------------------------------------------------------------------- litter


@pytest.mark.parametrize("when", ["in restore", "while running"])
def test_what_does_not_count_gets_a_tombstone(bench: Bench, when: str) -> None:
    late = [turn(0, 7), position(0, 8)]
    if when == "in restore":
        bench.coordinator.close()
        land(bench, *late)
        bench.begin()
    else:
        land(bench, *late)
    bench.pass_s(5)
    assert Counter(tombstones(bench)) == Counter(map(history_key, late))
    assert list(bench.partition.store.litter(b"")) == []


def test_parts_of_a_turn_that_was_never_complete_get_tombstones(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "MAX_PART_BYTES", 400)
    bench.send(start())
    bench.hook.fates[HISTORY] = [Fate.LAND, Fate.LOSE]
    bench.send(signal("note", "x" * 300), signal("note", "y" * 300))
    (lost,) = (record for record in bench.turns if record.turn == 2 and record.epoch == 1)
    bench.pass_s(5)
    assert tombstones(bench) == [history_key(lost)]


def test_a_key_that_also_has_a_record_that_counts_gets_none(bench: Bench) -> None:
    bench.send(start())
    (counts,) = bench.turns
    land(bench, counts)  # as if a producer had repeated it
    bench.pass_s(5)
    assert tombstones(bench) == []
    assert list(bench.partition.store.litter(b"")) == [], "it is not looked at again and again"


def test_only_the_last_position_stays(bench: Bench) -> None:
    for n in range(4):
        bench.send(c.AwaitResult(workflow_id="a", request_id=str(n), reply_to=TO_ME))
        bench.pass_s(1)
    bench.restart()
    bench.pass_s(5)
    keys = [history_key(record) for record in bench.history if isinstance(record, Position)]
    assert len(keys) >= 4
    assert sorted(tombstones(bench)) == sorted(keys[:-1])
    compact(bench)
    bench.partition.store.wipe()
    bench.restart()
    assert bench.partition.marks.commands == 4


def test_a_tombstone_that_was_lost_is_sent_again(bench: Bench) -> None:
    bench.hook.fates[HISTORY] = [Fate.LOSE]
    land(bench, turn(0, 7))
    bench.pass_s(AGAIN_S - 2)
    assert tombstones(bench) == []
    bench.pass_s(4)
    assert tombstones(bench) == [history_key(turn(0, 7))]


def test_a_restart_forgets_none(bench: Bench) -> None:
    bench.hook.fates[HISTORY] = [Fate.LOSE]
    land(bench, turn(0, 7))
    bench.pass_s(2)
    bench.restart()
    bench.pass_s(2)
    assert tombstones(bench) == [history_key(turn(0, 7))]


def test_a_few_at_a_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "TOMBSTONES_PER_SWEEP", 3)
    land(bench, *(turn(0, seq, number=seq) for seq in range(1, 11)))
    counts = [len(tombstones(bench))]
    for _ in range(10):
        bench.runtime.elapsed_s += 1
        bench.step(2)
        counts.append(len(tombstones(bench)))
    assert counts[-1] == 10
    assert max(after - before for before, after in pairwise(counts)) == 3


# ----------------------------------------------------------------------------------------- retention


def test_a_closed_run_goes_and_leaves_nothing(bench: Bench) -> None:
    run_closed(bench)
    keys = [key for turn in bench.turns for key in turn_keys(turn)]
    bench.pass_s(RETENTION_S - 5)
    assert bench.partition.store.latest_run_id("a") is not None
    assert not set(keys) & set(tombstones(bench))
    bench.pass_s(15)
    gone = [key for key in tombstones(bench) if key in keys]
    assert gone[0] == keys[0], "the first turn goes first"
    assert Counter(gone) == Counter(keys)
    assert rows(bench) == []


def test_its_id_and_its_request_ids_can_be_used_again(bench: Bench) -> None:
    first = run_closed(bench)
    policy = IdReusePolicy.REJECT_DUPLICATE
    bench.send(start(id_reuse_policy=policy, request_id="too early"))
    assert bench.reply("too early").rejection == "workflow-already-started"
    bench.pass_s(AFTER_S)
    bench.send(start(id_reuse_policy=policy))
    assert bench.reply("start").run_id not in (first, "")
    assert bench.reply("start").rejection == ""


def test_a_later_run_of_the_id_and_open_ones_stay(bench: Bench) -> None:
    run_closed(bench, prefix="1-")
    bench.pass_s(RETENTION_S / 2)
    bench.send(start(request_id="2-start"))
    bench.send(start("b", "b-start"))
    second = bench.turns[-2].run_id
    bench.pass_s(AFTER_S)
    store = bench.partition.store
    assert store.latest_run_id("a") == second
    assert store.request("a", "1-start") is None
    assert store.request("a", "2-start") is not None
    assert len(list(store.open_runs())) == 2
    bench.send(signal("finish", request_id="2-finish"))
    assert bench.turns[-1].run_id == second


def snapshot(bench: Bench) -> list[tuple[str, Any]]:
    """Open runs as they stand."""
    store = bench.partition.store
    return [(run_id, store.state(run_id)) for run_id in store.open_runs()]


@pytest.mark.parametrize("compacted_after", [False, True])
def test_a_rebuild_gives_the_same(bench: Bench, compacted_after: bool) -> None:
    for n in range(5):
        run_closed(bench, f"closed-{n}", f"{n}-")
    for n in range(3):
        bench.send(start(f"open-{n}", f"o{n}"))
    bench.pass_s(AFTER_S)
    before, kept = snapshot(bench), rows(bench)
    assert len(before) == 3
    if compacted_after:
        compact(bench)
        assert len({turn.run_id for turn in bench.turns}) == 3
    bench.partition.store.wipe()
    bench.restart()
    bench.pass_s(2)
    assert (snapshot(bench), rows(bench)) == (before, kept)
    turns, first = len(bench.turns), bench.partition.store.latest_run_id("open-0")
    bench.send(start("open-0", "o0"), signal("finish", workflow_id="open-1", request_id="f"))
    assert (len(bench.turns), bench.reply("o0").run_id) == (turns + 1, first)


@pytest.mark.parametrize("stop_after", range(8))
def test_whoever_comes_after_goes_on_where_the_cleaning_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """The process dies after so many tombstones; half of the time its store is lost and all is compacted."""
    monkeypatch.setattr(retention, "TOMBSTONES_PER_SWEEP", 1)
    run_closed(bench)
    run_closed(bench, "b", "b-")
    keys = {key for turn in bench.turns for key in turn_keys(turn)}
    assert len(keys) == 6
    for _ in range(2_000):
        if len(set(tombstones(bench)) & keys) >= min(stop_after, 6):
            break
        bench.runtime.elapsed_s += 1
        bench.step()
    if stop_after % 2:
        bench.partition.store.wipe()
        bench.cluster.clean(HISTORY, 0, up_to=bench.cluster.partition(HISTORY, 0).end)
    else:
        bench.partition.store.close()
        bench.runtime.elapsed_s += 10
        bench.begin()
    bench.restart()
    bench.pass_s(AFTER_S)
    compact(bench)
    assert bench.turns == []
    assert rows(bench) == []


def test_what_is_left_of_a_run_without_its_first_turn_is_cleaned_by_whoever_finds_it(bench: Bench) -> None:
    bench.coordinator.close()
    left = [turn(1, seq, number=seq + 1) for seq in range(1, 4)]
    land(bench, claim(1), *left, claim(2))
    shutil.rmtree(bench.folder)
    bench.begin()
    bench.pass_s(5)
    assert [key for key in tombstones(bench) if key.startswith(b"f")] == list(map(history_key, left))
    assert bench.partition.store.state("f" * 32) is None


def test_a_run_whose_history_has_a_gap_keeps_its_records(bench: Bench) -> None:
    """It may be damage: whoever looks for the reason needs them."""
    bench.send(start())
    first = bench.turns[-1]
    bench.coordinator.close()
    land(bench, claim(9), *(turn(9, n, run_id=first.run_id, number=n + 5) for n in range(1, 4)))
    shutil.rmtree(bench.folder)
    bench.begin()
    bench.pass_s(5)
    assert not [key for key in tombstones(bench) if not key.startswith(b"position")]


def test_it_waits_for_what_has_not_left(bench: Bench) -> None:
    bench.beat()
    bench.send(start("p", "p", workflow_type="Paid"))
    bench.partition.outflow.expect(0, 1, bench.partition.now_s + 10_000)  # never acknowledged
    bench.send(report(bench.tasks[0]))
    bench.pass_s(AFTER_S)
    keys = {key for turn in bench.turns for key in turn_keys(turn)}
    assert not keys & set(tombstones(bench))
    bench.restart()
    bench.pass_s(5)
    assert keys <= set(tombstones(bench))


def test_it_waits_for_a_position_that_covers_its_commands(bench: Bench) -> None:
    """A partition that is never idle writes none by itself."""
    run_closed(bench)
    keys = {key for turn in bench.turns for key in turn_keys(turn)}
    bench.send(start("busy", "busy"))
    bench.partition.history.covered_through = -1
    bench.partition.commands.held[0] = 1e9  # a forwarded command is not acknowledged
    for n in range(round(AFTER_S)):
        bench.put(signal("note", str(n), workflow_id="busy"))
        bench.runtime.elapsed_s += 1
        bench.step(3)
    assert not keys & set(tombstones(bench))
    bench.partition.commands.held.clear()
    for n in range(130):
        bench.put(signal("note", str(n), workflow_id="busy", request_id=f"again-{n}"))
        bench.runtime.elapsed_s += 1
        bench.step(3)
    assert keys <= set(tombstones(bench))


def test_the_default_is_a_week() -> None:
    assert DEFAULT_RETENTION_MS == 7 * 24 * 3_600_000


def test_late_tombstones_of_a_former_owner_do_no_harm(bench: Bench) -> None:
    """They are about what counts no longer for good, whoever sends them and however late."""
    run_closed(bench)
    bench.pass_s(AFTER_S)
    late = tombstones(bench)
    bench.cluster.faults = msgspec.structs.replace(CALM, latency_ms=0)
    bench.send(start(request_id="new"))
    state = snapshot(bench)
    for key in late:
        bench.land(HISTORY, None, key)
    bench.pass_s(5)
    assert snapshot(bench) == state
    bench.partition.store.wipe()
    bench.restart()
    assert snapshot(bench) == state
