"""History becomes rows: random histories against what their writer knows, and each rule by itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from fastavro import parse_schema, schemaless_writer

from orchestrator.codec import avro
from orchestrator.codec.schema import derive
from orchestrator.engine import execution
from orchestrator.engine.state import ActivityPhase, RunState
from orchestrator.protocol import events as e
from orchestrator.protocol.records import HistoryRecord, Marks, Turn, history_key
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.store import fold as fold_module
from orchestrator.store import indexes, keys
from orchestrator.store.fold import HistoryFold, next_marks, understood
from orchestrator.store.listing import Listing
from orchestrator.store.minutes import MINUTE_MS
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.summaries import summarize

from .scribe import Scribe, Written

SEEDS = range(30)
"""Each is a history of its own; a failing one is named by the test's id."""

STEPS = 150
CRASHES = 3


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PartitionStore]:
    store = PartitionStore(tmp_path / "store", log_id="log")
    yield store
    store.close()


@pytest.fixture
def indexed(tmp_path: Path) -> Iterator[PartitionStore]:
    store = PartitionStore(tmp_path / "indexed", log_id="log", indexed=True)
    yield store
    store.close()


def rows(store: PartitionStore) -> dict[bytes, bytes]:
    """All rows but the checkpoint, the states, which may lag behind, and what is to be cleaned."""
    found = store.scan(b"", b"\xff")
    return {key: value for key, value in found if key[:1] not in (b"r", keys.CHECKPOINT, keys.LITTER)}


def expect_only(store: PartitionStore, scribe: Scribe) -> None:
    """The store holds what counts, and nothing else."""
    states = scribe.states()
    found = {key[1:].decode() for key, _ in store.scan(b"r", b"s")}
    assert found == set(states)
    expected: set[bytes] = {keys.latest(workflow_id) for workflow_id in scribe.latest}
    for run_id, state in states.items():
        turns = scribe.alive[run_id]
        assert store.state(run_id) == state
        assert [_content(turn) for turn in store.turns(run_id)] == [_content(turn) for turn in turns]
        expected |= {keys.turn(run_id, turn.turn) for turn in turns}
        expected |= {
            keys.request(state.workflow_id, cause.request_id) for turn in turns for cause in turn.causes
        }
        expected.add(keys.open_run(run_id) if state.is_open else keys.close(state.close_time_ms, run_id))
        expected |= {keys.deadline(run_id, due) for due in execution.deadlines_of(state)}
    if store.indexed:
        expected |= expect_indexes(store, states)
        expected |= expect_offsets(store, scribe)
        expected |= expect_minutes(store, states, scribe)
    assert rows(store).keys() == expected
    for workflow_id, run_id in scribe.latest.items():
        assert store.latest_run_id(workflow_id) == run_id
    assert store.checkpoint.offset == scribe.log[-1].offset + 1
    assert store.checkpoint.marks.commands <= scribe.commands
    assert all(offset >= store.checkpoint.marks.commands for offset in store.checkpoint.covered)


def expect_indexes(store: PartitionStore, states: dict[str, RunState]) -> set[bytes]:
    """The counters and summaries are right; returns the keys of all rows that there are to be."""
    listing = Listing(store)
    expected: set[bytes] = set()
    counts: Counter[tuple[WorkflowStatus, str]] = Counter()
    groups: Counter[str] = Counter()
    for run_id, state in states.items():
        place = keys.place(state.start_time_ms, run_id)
        summary, failure = summarize(state)
        assert listing.run_at(place) == summary
        expected |= {
            keys.STARTS + place,
            keys.by_status(state.status) + place,
            keys.by_type(state.workflow_type, state.status) + place,
            keys.by_id(state.workflow_id) + place,
            keys.count(state.status, state.workflow_type),
        }
        counts[state.status, state.workflow_type] += 1
        if failure is not None:
            groups[failure.fingerprint] += 1
            expected |= {
                keys.by_group(failure.fingerprint) + place,
                keys.failure_group(failure.fingerprint),
            }
        for one in state.activities.values():
            if one.phase is ActivityPhase.WAITING or one.attempt > 1:
                expected.add(keys.pending(run_id, one.activity_id))
    assert listing.counts() == counts
    assert {name: group.runs for name, group in listing.groups().items()} == groups
    written = {keys.parse_count(key): keys.unpack_offset(value) for key, value in store.scan(b"n", b"o")}
    assert written == counts
    for key, pending in listing.pending():
        one = states[pending.run_id].activities[pending.activity_id]
        assert key == keys.pending(pending.run_id, pending.activity_id)
        assert (pending.phase, pending.attempt) == (one.phase, one.attempt)
        assert pending.last_failure == (one.last_failure.message if one.last_failure else "")
    return expected


def expect_offsets(store: PartitionStore, scribe: Scribe) -> set[bytes]:
    """The last record of each turn stands where the store says; returns the keys of these rows."""
    by_offset = {written.offset: written for written in scribe.log}
    expected = set()
    for run_id, turns in scribe.alive.items():
        offsets = store.offsets(run_id)
        assert list(offsets) == [turn.turn for turn in turns]
        for number, offset in offsets.items():
            found = avro.decode(by_offset[offset].value or b"", "history")
            assert (found.run_id, found.turn) == (run_id, number)
            assert found.parts
            expected.add(keys.offset_of_turn(run_id, number))
    return expected


def expect_minutes(store: PartitionStore, states: dict[str, RunState], scribe: Scribe) -> set[bytes]:
    """Each run that is there was counted once, and none more often that is gone; returns the keys."""
    found = Listing(store).minutes()
    started = Counter(state.start_time_ms // MINUTE_MS for state in states.values())
    closed = Counter(state.close_time_ms // MINUTE_MS for state in states.values() if not state.is_open)
    assert all(found[number].started >= runs for number, runs in started.items())
    assert all(found[number].completed + found[number].failed >= runs for number, runs in closed.items())
    assert sum(row.started for row in found.values()) <= scribe.runs
    gone = scribe.runs - len(states)
    assert sum(row.completed + row.failed for row in found.values()) <= closed.total() + gone
    return {keys.minute(number) for number in found}


def _content(turn: Turn) -> tuple[Any, ...]:
    return turn.turn, turn.first_event_id, turn.events, turn.causes, turn.time_ms


@pytest.mark.parametrize("seed", SEEDS)
def test_what_counts_and_nothing_else_becomes_rows(
    store: PartitionStore, indexed: PartitionStore, seed: int
) -> None:
    scribe, rng = Scribe(seed).write(STEPS), Random(seed)
    for filled in (store, indexed):
        fold = HistoryFold(filled)
        for record in scribe.log:
            assert fold.take(record) == ""
            if rng.random() < 0.1:
                fold.flush()
        fold.flush()
        expect_only(filled, scribe)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_crash_at_any_record_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """What was not flushed is gone; everything is brought again, more of it than necessary."""
    monkeypatch.setattr(fold_module, "MAX_RUNS_KEPT", 2)
    monkeypatch.setattr(indexes, "MAX_KNOWN", 2)
    scribe, rng = Scribe(seed).write(STEPS), Random(seed)
    ends = [rng.randrange(len(scribe.log)) for _ in range(CRASHES)]
    for end in [*ends, len(scribe.log)]:
        store = PartitionStore(tmp_path / "store", log_id="log", indexed=True)
        fold = HistoryFold(store)
        for record in scribe.log[:end]:
            fold.take(record)
            if record.offset >= store.checkpoint.offset and rng.random() < 0.15:
                fold.flush()
        if end == len(scribe.log):
            fold.flush()
            expect_only(store, scribe)
        store.close()


def test_the_histories_hold_everything_that_there_is_to_fold() -> None:
    """Otherwise the tests above say little."""
    removed = repeated = parts = failing = 0
    for seed in SEEDS:
        scribe = Scribe(seed).write(STEPS)
        removed += scribe.runs - len(scribe.alive)
        failing += sum(summarize(state)[1] is not None for state in scribe.states().values())
        repeated += scribe.runs - len({turns[0].workflow_id for turns in scribe.alive.values()})
        parts += sum(b"/" in key[key.index(b"/") + 1 :] for _, key, _ in scribe.log if key.count(b"/") == 3)
    assert removed > 30
    assert failing > 30
    assert repeated > 30
    assert parts > 300


# ------------------------------------------------------------------------------------- rules, one by one


class Page:
    """A fold that is fed by hand; one run, with a first turn."""

    def __init__(self, store: PartitionStore) -> None:
        self.store, self.fold, self.scribe = store, HistoryFold(store), Scribe(0)
        self.fold.take(self.scribe.log[0])
        self.turns: list[Turn] = []
        self.run_id = "a" * 32
        self.take(self.turn(e.WorkflowStarted(workflow_type="Order", run_timeout_ms=9_000)))

    def turn(self, *events: e.Event, skip: int = 0, **fields: Any) -> Turn:
        """The run's next turn; with ``skip``, one after it."""
        self.scribe.seq += 1
        made = self.scribe.made(self.run_id, "wf", self.turns, events)
        made = msgspec.structs.replace(made, **{"seq": self.scribe.seq, "turn": made.turn + skip} | fields)
        self.turns.append(made)
        return made

    def take(self, record: HistoryRecord, value: bytes | None = None) -> str:
        offset = self.fold.next_offset
        return self.fold.take(Written(offset, history_key(record), value or avro.encode(record)))

    def erase(self, key: bytes) -> None:
        assert self.fold.take(Written(self.fold.next_offset, key, None)) == ""

    def rows(self) -> dict[bytes, bytes]:
        self.fold.flush()
        return rows(self.store)

    @property
    def status(self) -> tuple[int, int] | None:
        """How far the run has come: turn and last event."""
        self.fold.flush()
        state = self.store.state(self.run_id)
        return (state.turn, state.next_event_id - 1) if state is not None else None


@pytest.fixture
def page(store: PartitionStore) -> Page:
    return Page(store)


def signal(name: str = "s") -> e.WorkflowSignaled:
    return e.WorkflowSignaled(signal_name=name)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("after", [True, False])
def test_a_gap_drops_the_run_and_all_that_is_of_it(page: Page, before: bool, after: bool) -> None:
    """Whether the run was flushed before its end is seen or not, and that end before more of it comes."""
    page.take(page.turn(e.TimerStarted(timer_id=1, fire_time_ms=10**13)))
    if before:
        page.fold.flush()
    reason = page.take(page.turn(signal(), skip=1))
    assert reason.startswith(f"run {page.run_id} of 'wf' is dropped, its history has a gap: ")
    assert "found turn 4" in reason
    assert not after or page.rows() == {}
    assert page.take(page.turn(signal())) == "", "what follows is of a run that is not there"
    assert page.rows() == {}


def test_a_run_without_its_first_turn_is_ignored(page: Page) -> None:
    page.run_id = "b" * 32
    assert page.take(page.turn(signal())) == ""
    assert page.status is None


def test_the_tombstone_of_a_turn_that_counts_removes_its_run(page: Page) -> None:
    page.take(page.turn(signal()))
    page.fold.flush()
    page.erase(history_key(page.turns[0]))
    assert page.rows() == {}
    page.erase(history_key(page.turns[1]))
    assert page.rows() == {}


def test_a_reader_that_missed_the_first_tombstone_removes_the_run_by_another(page: Page) -> None:
    page.take(page.turn(signal()))
    page.erase(history_key(page.turns[1]))
    assert page.rows() == {}


def test_the_tombstone_of_one_part_is_enough(page: Page) -> None:
    whole = page.turn(signal("a"), signal("b"))
    page.scribe.seq += 1
    page.take(msgspec.structs.replace(whole, events=whole.events[:1], part=0, parts=0))
    last = msgspec.structs.replace(
        whole, events=whole.events[1:], part=1, parts=2, seq=whole.seq + 1, first_event_id=3
    )
    page.take(last)
    assert page.status == (2, 3)
    page.erase(history_key(last))
    assert page.status is None


def test_the_tombstone_of_a_void_record_removes_nothing(page: Page) -> None:
    void = msgspec.structs.replace(page.turns[0], epoch=0)
    page.take(void)
    page.erase(history_key(void))
    for key in (b"claim/1/n1", b"position/1/7", b"heartbeat", b"a/b/c", b"", b"\xff/1/1"):
        page.erase(key)
    assert page.status == (1, 1)


def test_an_id_is_new_again_only_when_its_latest_run_is_gone(page: Page) -> None:
    first, turns = page.run_id, list(page.turns)
    page.take(page.turn(e.WorkflowCompleted()))
    page.run_id, page.turns = "b" * 32, []
    page.take(page.turn(e.WorkflowStarted(workflow_type="Order")))
    page.erase(history_key(turns[0]))
    page.fold.flush()
    assert page.store.state(first) is None
    assert page.store.latest_run_id("wf") == page.run_id
    page.erase(history_key(page.turns[0]))
    assert page.rows() == {}


def test_bytes_that_cannot_be_read_are_reported_and_remembered(page: Page) -> None:
    assert "expected a zero byte" in page.take(page.turn(signal()), b"garbage")
    unread = page.fold.next_offset - 1
    page.fold.flush()
    assert page.store.checkpoint.unread == (unread,)
    assert HistoryFold(page.store)._unread == (unread,)
    assert "gap" in page.take(page.turn(signal())), "the run goes when its next turn shows the gap"


def test_what_is_remembered_of_unreadable_bytes_is_bounded(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_module, "MAX_UNREAD", 3)
    for _ in range(5):
        page.take(page.turns[0], b"garbage")
    page.fold.flush()
    assert len(page.store.checkpoint.unread) == 3


def test_an_error_of_the_engine_itself_stops_who_decides(
    store: PartitionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise KeyError("a bug")

    for strict in (True, False):
        store.wipe()
        page = Page(store)
        page.fold = HistoryFold(store, strict=strict)
        page.fold.next_offset, page.fold.validity.epoch = 9, page.scribe.epoch
        page.fold.take(Written(9, b"", avro.encode(page.turns[0])))
        following = page.turn(signal())
        with monkeypatch.context() as patch:
            patch.setattr(fold_module.decider, "evolve", broken)
            if strict:
                with pytest.raises(KeyError, match="a bug"):
                    page.take(following)
            else:
                assert "a bug" in page.take(following)
                assert page.status is None


def newer_history() -> str:
    """The schema of a version that has one field and one kind of event more."""
    schema = json.loads(json.dumps(derive("history", HistoryRecord)))
    turn = next(record for record in schema if record["name"] == "Turn")
    turn["fields"].append({"name": "region", "type": "string", "default": ""})
    events = next(field for field in turn["fields"] if field["name"] == "events")["type"]["items"]
    events.append({"type": "record", "name": "TimerMoved", "fields": [{"name": "by_ms", "type": "long"}]})
    return json.dumps(schema)


def written_by_newer(turn: Turn, number: int, *, moved: bool) -> bytes:
    """The turn as that version writes it, with an event of the new kind before its own if ``moved``."""
    fields = msgspec.to_builtins(turn)
    del fields["record"]
    events = [
        (f"orchestrator.history.{type(event).__name__}", _without_tag(msgspec.to_builtins(event)))
        for event in turn.events
    ]
    new = [("orchestrator.history.TimerMoved", {"by_ms": 5})] if moved else []
    out = BytesIO()
    record = ("orchestrator.history.Turn", fields | {"events": [*new, *events], "region": "eu"})
    schemaless_writer(out, parse_schema(json.loads(newer_history())), record)
    return b"\0" + number.to_bytes(4, "big") + out.getvalue()


def _without_tag(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name != "event"}


def test_an_older_reader_skips_what_a_newer_version_added(page: Page) -> None:
    number = avro.AvroCodec().register(newer_history())
    following = page.turn(signal())
    value = written_by_newer(following, number, moved=True)
    assert f"no schema with the id {number}" in avro_reason(value) or number in avro.DEFAULT._known_readers
    avro.register(newer_history())
    assert page.take(following, value) == ""
    assert page.status == (2, 3), "the unknown event keeps its place in the numbering"
    page.turns[-1] = msgspec.structs.replace(following, events=(signal(), signal()))
    plain = page.turn(signal())
    assert page.take(plain, written_by_newer(plain, number, moved=False)) == ""
    assert page.status == (3, 4)
    assert len(page.store.checkpoint.unread) == 1, "the first of the two was not understood wholly"
    assert not understood(Written(0, b"", value))
    assert understood(Written(0, b"", written_by_newer(plain, number, moved=False)))


def avro_reason(value: bytes) -> str:
    try:
        avro.decode(value)
    except avro.DecodeError as error:
        return str(error)
    return ""


def test_bytes_are_understood_or_not(page: Page) -> None:
    assert understood(Written(0, b"", avro.encode(page.turns[0])))
    assert not understood(Written(0, b"", b"garbage"))


def test_rows_of_others_are_written_in_the_same_batch(page: Page) -> None:
    page.fold.flush([fold_module.Row(b"zz", b"1")], next_offset=77)
    assert rows(page.store)[b"zz"] == b"1"
    assert page.store.checkpoint.offset == page.fold.next_offset == 77
    page.fold.flush(next_offset=5)
    assert page.store.checkpoint.offset == 77


def test_marks_never_go_back() -> None:
    marks = Marks(commands=5, commands_tx=2)
    assert next_marks(marks, Marks(commands=4, commands_tx=2)) is marks
    assert next_marks(marks, Marks(commands=6)) == Marks(commands=6, commands_tx=2)
    assert next_marks(marks, Marks(commands=4, commands_tx=3)) == Marks(commands=5, commands_tx=3)
