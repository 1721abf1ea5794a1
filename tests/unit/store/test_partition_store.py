"""Rows, scans and the checkpoint; a damaged store is wiped, never guessed at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from rocksdict import DbClosedError

from orchestrator.engine import decider
from orchestrator.engine.state import Changes, Deadline, DeadlineKind, RunState
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Cause, Marks, Turn
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.store import keys, partition_store
from orchestrator.store.partition_store import Checkpoint, DueDeadline, PartitionStore, StoreDamaged
from orchestrator.store.rows import Request, Row, encode_state, rows_of

NOW_MS = 1_700_000_000_000


def run_id(number: int) -> str:
    return f"{number:032x}"


class Runs:
    """Makes turns and applies them."""

    def __init__(self, store: PartitionStore) -> None:
        self.store = store
        self.offset = 0
        self.states: dict[str, RunState] = {}

    def turn(
        self, number: int, *events: e.Event, snapshot: bool = True, at_ms: int = NOW_MS, **fields: Any
    ) -> Turn:
        state = self.states.get(run_id(number))
        values: dict[str, Any] = {
            "epoch": 1,
            "seq": self.offset + 1,
            "marks": Marks(),
            "sent_through": -1,
            "time_ms": at_ms,
            "workflow_id": f"wf-{number}",
            "run_id": run_id(number),
            "turn": state.turn + 1 if state else 1,
            "first_event_id": state.next_event_id if state else 1,
            "activation": Activation.NONE,
            "events": events,
        }
        turn = Turn(**values | fields)
        changes = Changes()
        state = decider.evolve(state, turn, changes)
        self.states[turn.run_id] = state
        row = encode_state(state) if snapshot or turn.turn == 1 or not state.is_open else None
        self.offset += 1
        self.store.apply(
            rows_of(turn, changes, state=row, is_open=state.is_open),
            msgspec.structs.replace(self.store.checkpoint, offset=self.offset, epoch=1),
        )
        return turn


STARTED = e.WorkflowStarted(workflow_type="Order")


def timer(number: int, in_ms: int) -> e.TimerStarted:
    return e.TimerStarted(timer_id=number, fire_time_ms=NOW_MS + in_ms)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PartitionStore]:
    store = PartitionStore(tmp_path / "p", log_id="log")
    yield store
    with contextlib.suppress(DbClosedError):  # it was opened again
        store.close()


@pytest.fixture
def runs(store: PartitionStore) -> Runs:
    return Runs(store)


def reopened(store: PartitionStore, **fields: Any) -> PartitionStore:
    store.close()
    return PartitionStore(store.folder, **{"log_id": "log"} | fields)


# ------------------------------------------------------------------------------------------ rows


def test_an_empty_store_begins_at_offset_zero(store: PartitionStore) -> None:
    assert store.checkpoint == Checkpoint(log_id="log")
    assert store.latest_run_id("wf-1") is None
    assert store.state(run_id(1)) is None
    assert store.turn(run_id(1), 1) is None
    assert store.request("wf-1", "r") is None
    assert list(store.open_runs()) == list(store.deadlines(b"", 2**60)) == []


def test_what_a_first_turn_leaves(store: PartitionStore, runs: Runs) -> None:
    turn = runs.turn(
        1, STARTED, causes=(Cause(source="commands", offset=3, request_id="r", kind="StartWorkflow"),)
    )
    assert store.latest_run_id("wf-1") == run_id(1)
    assert store.state(run_id(1)) == runs.states[run_id(1)]
    assert store.turn(run_id(1), 1) == turn
    assert list(store.turns(run_id(1))) == [turn]
    assert list(store.open_runs()) == [run_id(1)]
    assert store.request("wf-1", "r") == Request(run_id(1), 1, "StartWorkflow")
    assert store.request("wf-1", "") is None
    assert store.checkpoint.offset == 1


def test_a_close_leaves_no_open_run_and_no_deadline(store: PartitionStore, runs: Runs) -> None:
    runs.turn(1, STARTED, timer(1, 5), timer(2, 9))
    assert len(list(store.deadlines(b"", 2**60))) == 2
    runs.turn(1, e.WorkflowCompleted())
    assert list(store.open_runs()) == []
    assert list(store.deadlines(b"", 2**60)) == []
    assert store.state(run_id(1)) == runs.states[run_id(1)]


def test_a_request_of_one_id_is_not_that_of_another(store: PartitionStore, runs: Runs) -> None:
    runs.turn(1, STARTED, causes=(Cause(source="commands", offset=3, request_id="1x", kind="K"),))
    assert store.request("wf-", "1x") is None
    assert store.request("wf-11", "x") is None


def test_turns_of_one_run_in_order_from_anywhere(store: PartitionStore, runs: Runs) -> None:
    made = [runs.turn(1, STARTED)]
    runs.turn(2, STARTED)
    made += [runs.turn(1, e.WorkflowSignaled(signal_name=str(n))) for n in range(300)]
    runs.turn(3, STARTED)
    assert list(store.turns(run_id(1))) == made
    assert list(store.turns(run_id(1), after=299)) == made[299:]
    assert list(store.turns(run_id(1), after=301)) == []


def test_a_store_with_other_indexes_is_made_again(store: PartitionStore, runs: Runs) -> None:
    runs.turn(1, STARTED)
    indexed = reopened(store, indexed=True)
    assert indexed.checkpoint == Checkpoint(log_id="log", indexed=True)
    assert not list(indexed.open_runs())
    assert is_empty(reopened(indexed))


def test_several_scans_are_of_one_moment(store: PartitionStore) -> None:
    """Else what moves from one range to another could be in none of them."""
    store.apply([Row(b"za", b"1"), Row(b"zc", b"3"), Row(b"zd", b"4")], store.checkpoint)
    scans = store.scans([(b"za", b"zb"), (b"zb", b"zd")])
    store.apply([Row(b"za", None), Row(b"zb", b"2")], store.checkpoint)
    assert [list(scan) for scan in scans] == [[(b"za", b"1")], [(b"zc", b"3")]]


def test_no_write_comes_between_the_scans_of_a_moment(
    store: PartitionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = store._cursor
    writing: list[bool] = []

    def open_one(end: bytes) -> Any:
        writing.append(store._writing.locked())
        return begin(end)

    monkeypatch.setattr(store, "_cursor", open_one)
    store.scans([(b"a", b"b"), (b"b", b"c")])
    assert writing == [True, True]


def test_deadlines_in_order_of_time_with_resume_keys(store: PartitionStore, runs: Runs) -> None:
    runs.turn(2, STARTED, timer(1, 300), timer(2, 100))
    runs.turn(1, STARTED, timer(1, 200), timer(2, 70_000_000))
    found = list(store.deadlines(b"", 2**60))
    assert [due.deadline.at_ms - NOW_MS for _, due in found] == [100, 200, 300, 70_000_000]
    assert found[1][1] == DueDeadline("wf-1", run_id(1), Deadline(NOW_MS + 200, DeadlineKind.TIMER, 1))
    assert [due.deadline.at_ms - NOW_MS for _, due in store.deadlines(b"", NOW_MS + 300)] == [100, 200]
    for place, (key, _) in enumerate(found):
        assert list(store.deadlines(key + b"\0", 2**60)) == found[place + 1 :]
    at_200 = store.deadline_key(NOW_MS + 200)
    assert list(store.deadlines(at_200, 2**60)) == found[1:]


@pytest.mark.parametrize("kind", DeadlineKind)
def test_a_deadline_survives_its_key(kind: DeadlineKind) -> None:
    due = Deadline(NOW_MS, kind, 2**32 - 1)
    assert keys.parse_deadline(keys.deadline(run_id(7), due)) == (run_id(7), due)


def test_scheduled_finds_the_event_and_its_time(store: PartitionStore, runs: Runs) -> None:
    event = e.ActivityScheduled(activity_id=1, activity_type="a", task_queue="q")
    runs.turn(1, STARTED)
    runs.turn(1, e.WorkflowSignaled(signal_name="x"), event, at_ms=NOW_MS + 9)
    assert store.scheduled(run_id(1), 3) == (event, NOW_MS + 9)
    assert store.scheduled(run_id(1), 2) is None
    assert store.scheduled(run_id(1), 9) is None


def test_a_state_row_may_lag_and_turns_catch_up(store: PartitionStore, runs: Runs) -> None:
    fan_out = [
        e.ActivityScheduled(activity_id=n, activity_type="a", task_queue="q", worker="w")
        for n in range(1, 2_001)
    ]
    runs.turn(1, STARTED, *fan_out)
    for number in range(1, 101):
        runs.turn(1, e.ActivityCompleted(activity_id=number), snapshot=False, at_ms=NOW_MS + number)
    found = store.state(run_id(1))
    assert found == runs.states[run_id(1)]
    assert found is not None
    assert len(found.activities) == 1_900
    assert found.turn == 101


def test_a_state_is_the_same_after_its_row(store: PartitionStore, runs: Runs) -> None:
    failure = e.Failure(kind="application", message="m", cause=e.Failure(kind="timeout", message="c"))  # type: ignore[arg-type]
    runs.turn(
        1,
        e.WorkflowStarted(workflow_type="Order", run_timeout_ms=60_000),
        e.ActivityScheduled(activity_id=1, activity_type="a", task_queue="q", worker="w"),
        e.ActivityAttemptFailed(activity_id=1, attempt=1, failure=failure, retry_time_ms=NOW_MS + 5),
        timer(4, 9),
        e.WorkflowCancelRequested(),
        e.WorkflowBlocked(reason="r", failure=failure),
        activation=Activation.DEFERRED,
    )
    assert store.state(run_id(1)) == runs.states[run_id(1)]
    runs.turn(1, e.WorkflowTerminated(reason="r"))
    assert store.state(run_id(1)) == runs.states[run_id(1)]


# ------------------------------------------------------------------------------- checkpoint and wiping


def test_rows_and_checkpoint_survive_a_reopening_together(store: PartitionStore, runs: Runs) -> None:
    turn = runs.turn(1, STARTED)
    checkpoint = Checkpoint(
        log_id="log",
        offset=7,
        epoch=3,
        nonce="n",
        generation=2,
        seq=9,
        marks=Marks(commands=5),
        sent_through=6,
        covered=(8, 9),
        parts=(turn,),
    )
    store.apply([], checkpoint)
    again = reopened(store)
    assert again.checkpoint == checkpoint
    assert list(again.turns(run_id(1))) == [turn]
    again.close()


def is_empty(store: PartitionStore) -> bool:
    return store.checkpoint == Checkpoint(log_id=store.checkpoint.log_id) and not list(store.open_runs())


def test_a_store_of_another_log_is_wiped(store: PartitionStore, runs: Runs) -> None:
    runs.turn(1, STARTED)
    again = reopened(store, log_id="another")
    assert is_empty(again)
    assert again.checkpoint.log_id == "another"
    again.close()


def test_a_store_of_another_format_is_wiped(
    store: PartitionStore, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs.turn(1, STARTED)
    monkeypatch.setattr(partition_store, "FORMAT", partition_store.FORMAT + 1)
    again = reopened(store)
    assert list(again.open_runs()) == []
    assert again.checkpoint.offset == 0
    again.close()


def test_a_wiped_store_can_be_used(store: PartitionStore, runs: Runs) -> None:
    runs.turn(1, STARTED)
    store.wipe()
    assert is_empty(store)
    Runs(store).turn(2, STARTED)
    assert list(store.open_runs()) == [run_id(2)]


def test_a_checkpoint_that_cannot_be_read_wipes(store: PartitionStore, runs: Runs) -> None:
    runs.turn(1, STARTED)
    store._db.put(keys.CHECKPOINT, b"\xc1 no msgpack")
    again = reopened(store)
    assert is_empty(again)
    again.close()


def test_damage_that_a_read_finds_is_said_and_wiped_at_the_next_opening(tmp_path: Path) -> None:
    store = PartitionStore(tmp_path / "p", log_id="log")
    Runs(store).turn(1, STARTED)
    store._db.flush()
    store.apply([], store.checkpoint)  # so that the damage is not in its block
    store.close()
    table = min(store.folder.glob("*.sst"))
    data = bytearray(table.read_bytes())
    data[10] ^= 1  # in the first block of rows
    table.write_bytes(bytes(data))
    damaged = PartitionStore(tmp_path / "p", log_id="log")
    with pytest.raises(StoreDamaged, match="rebuilt from history"):
        list(damaged.open_runs())
    with pytest.raises(StoreDamaged, match="rebuilt from history"):
        damaged.state(run_id(1))
    damaged.close()
    again = PartitionStore(tmp_path / "p", log_id="log")
    assert is_empty(again)
    again.close()


def test_damage_that_opening_finds_is_wiped_at_once(tmp_path: Path) -> None:
    """The counters of a store with indexes are read then."""
    store = PartitionStore(tmp_path / "p", log_id="log", indexed=True)
    store.apply([Row(keys.count(WorkflowStatus.FAILED, "Order"), keys.pack_offset(3))], store.checkpoint)
    store._db.flush()
    store.apply([], store.checkpoint)
    store.close()
    table = min(store.folder.glob("*.sst"))
    data = bytearray(table.read_bytes())
    data[10] ^= 1
    table.write_bytes(bytes(data))
    again = PartitionStore(tmp_path / "p", log_id="log", indexed=True)
    assert again.checkpoint == Checkpoint(log_id="log", indexed=True)
    assert (again.counts, again.damaged) == ({}, False)
    again.close()


def _truncate(file: Path, rng: Random) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(len(data) + 1)])


def _flip(file: Path, rng: Random) -> None:
    data = bytearray(file.read_bytes())
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(bytes(data))


def _delete(file: Path, rng: Random) -> None:
    file.unlink()


@pytest.mark.parametrize("seed", range(50))
def test_a_damaged_store_is_older_or_empty_but_never_wrong(tmp_path: Path, seed: int) -> None:
    """What opens stands at one offset of history, with exactly the rows of that offset."""
    rng = Random(seed)
    store = PartitionStore(tmp_path / "p", log_id="log")
    runs = Runs(store)
    for number in range(20):
        runs.turn(number, STARTED, timer(1, number))
        if number == 9 and seed % 2:
            store._db.flush()
    store.close()
    files = sorted(file for file in store.folder.iterdir() if file.is_file())
    rng.choice([_truncate, _flip, _delete])(rng.choice(files), rng)
    again = PartitionStore(tmp_path / "p", log_id="log")
    with contextlib.suppress(StoreDamaged):
        _is_at_one_offset(again, runs)
        again.close()
        return
    again.close()
    rebuilt = PartitionStore(tmp_path / "p", log_id="log")
    assert is_empty(rebuilt)
    rebuilt.close()


def _is_at_one_offset(again: PartitionStore, runs: Runs) -> None:
    offset = again.checkpoint.offset
    assert 0 <= offset <= 20
    assert list(again.open_runs()) == [run_id(n) for n in range(offset)]
    for number in range(offset):
        found = again.state(run_id(number))
        assert found == runs.states[run_id(number)]
        assert again.latest_run_id(f"wf-{number}") == run_id(number)
    assert len(list(again.deadlines(b"", 2**60))) == offset
