"""A view follows history: faults of the log, crashes of the view, damage, and what it cannot read."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from orchestrator.codec import avro
from orchestrator.errors import DataFolderInUse, LogError, Unavailable, WorkflowNotFound
from orchestrator.log.port import Polled
from orchestrator.log.schemas import SCHEMA_KEY
from orchestrator.log.simulated import Faults, SimulatedMember, SimulatedParty
from orchestrator.log.topics import DEAD_LETTERS, HISTORY, META, WORKERS
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Turn
from orchestrator.protocol.tasks import CoordinatorBeat, DeadLetter, WorkerBeat
from orchestrator.store import fold
from orchestrator.store.fold import HistoryFold
from orchestrator.store.partition_store import DAMAGED, PartitionStore
from orchestrator.view import followed, materializer
from orchestrator.view.materializer import Materializer
from orchestrator.view.store_reader import StoreReader
from tests.unit.store.scribe import Scribe
from tests.unit.store.test_fold import newer_history, written_by_newer

from .follow import PARTITIONS, START_MS, Follow, answers, ids_of

SEEDS = range(8)
STEPS = 100


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Follow]:
    found = Follow(tmp_path / "view")
    yield found
    found.view.close()


def scribe_of(seed: int, partition: int) -> Scribe:
    return Scribe(100 * seed + partition, ids=ids_of(partition), runs=f"{partition}").write(STEPS)


def run(workflow_id: str, *turns: tuple[e.Event, ...], seq: int = 0) -> list[Turn]:
    """A run of these turns, after its start, as the first owner writes them; ``seq`` is of the one before."""
    scribe, made = Scribe(0), []
    for events in ((e.WorkflowStarted(workflow_type="Order"),), *turns):
        scribe.seq = seq = seq + 1
        turn = scribe.made(workflow_id.encode().hex().ljust(32, "0"), workflow_id, made, events)
        made.append(turn)
    return made


def claim(follow: Follow, partition: int = 0) -> None:
    follow.copy_of(Scribe(0), partition)


def ids(view: Materializer) -> list[str]:
    return [row.workflow_id for row in StoreReader(view.stores).list_runs().rows]


# ------------------------------------------------------------------------------------------- follows


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_the_log_does_the_view_shows_what_counts(tmp_path: Path, seed: int) -> None:
    """In pieces, with crashes; against what was written, and against a view that begins afterwards."""
    follow, rng = Follow(tmp_path / "view", faults=Faults(), seed=seed), Random(seed)
    scribes = [scribe_of(seed, number) for number in range(PARTITIONS)]
    written = [0] * PARTITIONS
    while any(at < len(scribe.log) for at, scribe in zip(written, scribes, strict=True)):
        number = rng.randrange(PARTITIONS)
        more = rng.randint(0, 60)
        follow.copy_of(scribes[number], number, first=written[number], last=written[number] + more)
        written[number] += more
        for _ in range(rng.randint(0, 3)):
            follow.view.step()
        if rng.random() < 0.2:
            follow.reopen()
    found = answers(follow.settle())
    expected = {run_id: state for scribe in scribes for run_id, state in scribe.states().items()}
    assert {row.run_id for row in found["rows"]} == set(expected)
    for run_id, state in expected.items():
        description, history = found[run_id]
        assert (description.row.status, description.row.history_events) == (
            state.status,
            state.next_event_id - 1,
        )
        scribe = next(scribe for scribe in scribes if run_id in scribe.alive)
        assert [turn.events for turn in history.turns] == [turn.events for turn in scribe.alive[run_id]]
    later = follow.settle(follow.open(tmp_path / "later"))
    assert answers(later) == found
    later.close()
    follow.view.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_of_the_folder_at_any_time_goes_on(tmp_path: Path, seed: int) -> None:
    follow, rng = Follow(tmp_path / "view", seed=seed), Random(seed)
    scribe, copies = scribe_of(seed, 0), []
    for first in range(0, len(scribe.log), 20):
        follow.copy_of(scribe, 0, first=first, last=first + 20)
        follow.view.step()
        if rng.random() < 0.4:
            copies.append(tmp_path / f"copy-{first}")
            shutil.copytree(follow.folder, copies[-1])
    expected = answers(follow.settle())
    for copy in copies:
        view = follow.settle(follow.open(copy))
        assert answers(view) == expected
        view.close()
    follow.view.close()


def test_it_joins_no_group_and_appends_nothing(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(SimulatedMember, "join")
    monkeypatch.delattr(SimulatedParty, "appender")
    claim(follow)
    follow.write(*run("wf-1"))
    assert ids(follow.settle()) == ["wf-1"]


def test_a_partition_is_shown_once_it_is_caught_up(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="the log has not answered yet"):
        StoreReader(follow.view.stores).describe("wf-1")
    claim(follow)
    follow.write(*run("wf-1", *[(e.WorkflowSignaled(signal_name="s"),)] * 50))
    monkeypatch.setattr("orchestrator.log.simulated.POLL_RECORDS", 10)
    follow.view.step()
    with pytest.raises(Unavailable, match="partition 0 is being restored"):
        StoreReader(follow.view.stores).list_runs()
    behind = follow.view.status().partitions[0]
    assert (behind.ready, behind.lag_records) == (False, 42)
    follow.settle()
    assert ids(follow.view) == ["wf-1"]
    assert follow.view.status().partitions[0].lag_records == 0


def test_a_lag_is_seen_though_no_poll_brings_anything(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(follow)
    follow.settle()
    monkeypatch.setattr(SimulatedMember, "poll", lambda self, timeout_s: Polled([], [], []))
    follow.write(*run("wf-1"))
    follow.now_ms += materializer.LOOK_MS
    follow.view.step()
    assert follow.view.status().partitions[0].lag_records == 1


# ------------------------------------------------------------------------------------- begins anew


def offsets(view: Materializer) -> list[int]:
    return [one.offset for one in view.status().partitions]


def test_a_view_goes_on_where_its_store_stands(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(follow)
    follow.write(*run("wf-1"))
    follow.settle()
    follow.reopen()
    seeks: dict[tuple[str, int], int] = {}
    original = SimulatedMember.seek

    def seek(self: SimulatedMember, topic: str, partition: int, offset: int) -> None:
        seeks[topic, partition] = offset
        original(self, topic, partition, offset)

    monkeypatch.setattr(SimulatedMember, "seek", seek)
    assert ids(follow.settle()) == ["wf-1"]
    assert seeks[HISTORY, 0] == 2


@pytest.mark.parametrize("why", ["another log", "a log that lost its end", "long ago", "damage"])
def test_a_store_that_is_of_no_use_is_made_again(follow: Follow, why: str) -> None:
    claim(follow)
    follow.write(*run("wf-1", (e.WorkflowCompleted(),)), *run("wf-3", seq=2))
    expected = answers(follow.settle())
    follow.view.close()
    store = HistoryFold(open_store(follow, 0))
    store._rows = [fold.Row(b"i" + b"ghost", b"f" * 32)]
    store.flush(next_offset=10**6 if why == "a log that lost its end" else 0)
    store.store.close()
    if why == "damage":
        (follow.folder / "history" / "00000" / "CURRENT").write_text("nonsense")
    if why == "long ago":
        follow.now_ms += followed.MAX_AWAY_MS + followed.NOTE_MS
    follow.view = follow.open(log_id="other" if why == "another log" else "log")
    assert answers(follow.settle()) == expected
    stores = follow.view.stores()
    assert stores[0] is not None
    assert stores[0].latest_run_id("ghost") is None, "the old store is still there"


def open_store(follow: Follow, number: int) -> PartitionStore:
    return PartitionStore(follow.folder / "history" / f"{number:05d}", log_id="log", indexed=True)


def test_a_store_that_is_kept_notes_that_it_is(follow: Follow) -> None:
    """Otherwise a quiet namespace would be read again at each start."""
    claim(follow)
    follow.settle()
    for _ in range(3):
        follow.now_ms += followed.MAX_AWAY_MS // 2
        follow.view.step()
    store = follow.view.stores()[0]
    assert store is not None
    assert store.checkpoint.caught_up_ms == follow.now_ms > START_MS + followed.MAX_AWAY_MS


@pytest.mark.parametrize("who", ["a reader", "the fold"])
def test_damage_that_is_found_while_it_runs_is_rebuilt(follow: Follow, who: str) -> None:
    claim(follow)
    follow.write(*run("wf-1"))
    expected = answers(follow.settle())
    store = follow.view.stores()[0]
    assert store is not None
    if who == "a reader":
        store._damaged(RuntimeError("a block's checksum is wrong"))
        follow.view.step()
    else:
        (store.folder / DAMAGED).touch()
        store._db.close()
        follow.write(*run("wf-3", seq=1))
        follow.view.step()
        expected = {**expected, "rows": None}
    assert follow.view.stores()[0] is None
    assert "is opened again" in follow.view.status().partitions[0].trouble
    assert follow.view.stores()[1] is not None, "the others go on"
    follow.now_ms += 1_000
    follow.settle()
    assert follow.view.status().partitions[0].trouble == ""
    found = answers(follow.view)
    assert found["wf-1"] == expected["wf-1"]
    assert len(found["rows"]) == (1 if who == "a reader" else 2)


def test_a_disk_that_fails_for_a_while_costs_nothing(follow: Follow, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(follow)
    follow.settle()

    def full(*arguments: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(PartitionStore, "apply", full)
        patch.setattr(materializer.Letters, "put", lambda *arguments, **options: None)
        follow.write(*run("wf-1"))
        for _ in range(3):
            follow.now_ms += 1_000
            follow.view.step()
        assert "no space left" in follow.view.status().partitions[0].trouble
    follow.now_ms += 1_000
    assert ids(follow.settle()) == ["wf-1"]


def test_one_process_follows_in_a_folder(follow: Follow) -> None:
    with pytest.raises(DataFolderInUse, match="in use by process"):
        follow.open()


# ------------------------------------------------------------------------------------ cannot be read


def test_what_cannot_be_read_is_set_aside_and_shown_and_the_others_go_on(follow: Follow) -> None:
    claim(follow)
    first, second = run("wf-1", (e.WorkflowCompleted(),), seq=1)
    follow.write(*run("wf-3"), first)
    bad = follow.land(HISTORY, b"garbage", key=b"of nobody")
    for _ in range(2):
        follow.settle()
        (letter,) = follow.view.dead_letters().letters
        assert (letter.topic, letter.partition, letter.offset) == (HISTORY, 0, bad)
        assert (letter.key, letter.value) == (b"of nobody", b"garbage")
        assert "expected a zero byte" in letter.reason
        assert follow.view.status().dead_letters == 1
        follow.reopen()
    follow.write(second)
    assert sorted(ids(follow.settle())) == ["wf-1", "wf-3"]


def test_a_run_that_is_dropped_is_no_mystery(follow: Follow) -> None:
    claim(follow)
    turns = run("wf-1", (e.WorkflowSignaled(signal_name="s"),), (e.WorkflowCompleted(),))
    follow.write(turns[0], turns[2])
    assert ids(follow.settle()) == []
    (letter,) = follow.view.dead_letters().letters
    assert "of 'wf-1' is dropped, its history has a gap" in letter.reason


def test_a_newer_versions_records_are_read_once_its_schema_is_there(follow: Follow) -> None:
    number = avro.AvroCodec().register(newer_history())
    avro.DEFAULT._known_readers.pop(number, None)
    claim(follow)
    first, second = run("wf-1", (e.WorkflowCompleted(),))
    follow.write(first)
    follow.land(HISTORY, written_by_newer(second, number, moved=False))
    follow.settle()
    assert f"no schema with the id {number} is known here" in follow.view.dead_letters().letters[0].reason
    assert StoreReader(follow.view.stores).describe("wf-1").row.close_time_ms is None
    follow.land(META, newer_history().encode(), key=SCHEMA_KEY + str(number).encode())
    follow.until(lambda: answers_closed(follow))
    assert StoreReader(follow.view.stores).describe("wf-1").row.history_events == 2


def answers_closed(follow: Follow) -> bool:
    try:
        return StoreReader(follow.view.stores).describe("wf-1").row.close_time_ms is not None
    except Unavailable:
        return False


def test_a_version_that_understands_more_reads_again_from_the_beginning(
    follow: Follow, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim(follow)
    number = avro.register(newer_history())
    (first,) = run("wf-1")
    follow.write(first)
    second = run("wf-1", (e.WorkflowCompleted(),))[1]
    follow.land(HISTORY, written_by_newer(second, number, moved=True))
    follow.settle()
    follow.reopen()
    follow.settle()
    assert follow.view.stores()[0].checkpoint.unread == (2,)  # type: ignore[union-attr]
    monkeypatch.setattr(fold, "UnknownEvent", type("NoEvent", (), {}))
    follow.reopen()
    follow.settle()
    assert follow.view.stores()[0].checkpoint.unread == ()  # type: ignore[union-attr]


# ------------------------------------------------------------------------------ letters and beats


def letter(offset: int, reason: str = "nobody can read it") -> bytes:
    return avro.encode(DeadLetter(topic="commands", partition=1, offset=offset, reason=reason))


def test_dead_letters_are_kept_each_once_newest_first_in_pages(follow: Follow) -> None:
    for offset in (1, 2, 2, 3):
        follow.land(DEAD_LETTERS, letter(offset))
    follow.land(DEAD_LETTERS, None)
    follow.land(DEAD_LETTERS, b"garbage")
    follow.settle()
    for _ in range(2):
        page = follow.view.dead_letters(limit=2)
        assert [found.offset for found in page.letters] == [5, 3]
        assert "undecodable" not in page.letters[1].reason
        rest = follow.view.dead_letters(limit=10, page=page.next_page)
        assert ([found.offset for found in rest.letters], rest.next_page) == ([2, 1], "")
        follow.reopen()
        follow.settle()


def worker_beat(worker: str, **fields: object) -> bytes:
    beat = WorkerBeat(
        **{
            "worker": worker, "identity": "me", "task_queues": ("q",), "slots": 1, "running": 0, "inbox": 0,
            "inbox_offset": 0, "number": 1,
        }
        | fields
    )  # type: ignore[arg-type]  # fmt: skip
    return avro.encode(beat)


def test_who_beats_is_shown_with_its_silence(follow: Follow) -> None:
    follow.settle()
    follow.land(WORKERS, worker_beat("w1"))
    follow.land(
        WORKERS, avro.encode(CoordinatorBeat(coordinator="c", identity="", number=1, partitions=(0,)))
    )
    follow.land(WORKERS, b"garbage")
    follow.land(WORKERS, None)
    follow.view.step()
    follow.now_ms += 7_000
    follow.land(WORKERS, worker_beat("w2", running=1))
    follow.view.step()
    status = follow.view.status()
    assert [(seen.beat.worker, seen.silent_ms) for seen in status.workers] == [("w1", 7_000), ("w2", 0)]
    assert [seen.beat.partitions for seen in status.coordinators] == [(0,)]
    assert "expected a zero byte" in follow.view.dead_letters().letters[0].reason


# ------------------------------------------------------------------------------------------ threads


def test_an_id_is_unknown_only_if_the_log_does_not_have_it(follow: Follow) -> None:
    """Who asks right after a start waits until what was on the log by then is read."""
    claim(follow)
    follow.settle()
    reader = StoreReader(follow.view.stores, catch_up=follow.view.catch_up)
    follow.write(*run("wf-1"))
    found: list[object] = []

    def ask(workflow_id: str) -> None:
        try:
            found.append(reader.describe(workflow_id).row.workflow_id)
        except WorkflowNotFound as error:
            found.append(str(error))

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in ("wf-1", "wf-9")]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        follow.view.step()
    assert sorted(map(str, found)) == ["there is no workflow id 'wf-9'", "wf-1"]


def test_nobody_waits_for_a_view_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(materializer, "ASK_S", 3_600.0)
    follow = Follow(tmp_path)
    follow.settle()
    monkeypatch.setattr(SimulatedMember, "wake", lambda self: follow.view._stopping.set())
    waiting = threading.Thread(target=follow.view.catch_up, args=(0,), daemon=True)
    waiting.start()
    assert follow.view._stopping.wait(10)
    follow.view.close()
    waiting.join(10)
    assert not waiting.is_alive()
    follow.view.catch_up(0)


@pytest.mark.parametrize("words", ["no disk left", ""])
def test_why_the_log_does_not_answer_is_told_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """A poll that brings nothing proves nothing: the ends have to be known again."""
    monkeypatch.setattr(materializer, "RETRY_S", 0.001)
    follow = Follow(tmp_path / "other")
    view = follow.open(tmp_path / "view", explain=lambda: words)
    follow.settle(view)
    seen: list[str] = []
    original = SimulatedMember.end

    def end(self: SimulatedMember, topic: str, partition: int) -> int:
        seen.append(view.status().trouble)
        if len(seen) <= 3:
            raise Unavailable("no answer")
        if len(seen) == 3 + PARTITIONS:
            view._stopping.set()
        return original(self, topic, partition)

    monkeypatch.setattr(SimulatedMember, "end", end)
    follow.now_ms += materializer.LOOK_MS
    view.run()
    assert seen == ["", *[words or "no answer"] * (2 + PARTITIONS)]
    assert view.status().trouble == ""
    follow.view.close()


def test_a_log_that_is_away_is_waited_for_and_everything_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(materializer, "RETRY_S", 0.001)
    follow = Follow(tmp_path)
    claim(follow)
    follow.write(*run("wf-1"))
    seen: list[str] = []
    original = SimulatedMember.poll

    def poll(self: SimulatedMember, timeout_s: float) -> Polled:
        seen.append(follow.view.status().trouble)
        if len(seen) in (2, 3):
            raise LogError("the broker does not answer")
        if len(seen) == 6:
            follow.view._stopping.set()
        return original(self, timeout_s)

    monkeypatch.setattr(SimulatedMember, "poll", poll)
    monkeypatch.setattr(Materializer, "close", lambda self: None)
    follow.view.run()
    away = "the broker does not answer"
    assert seen == ["", "", away, away, "", ""]
    said = [record.getMessage() for record in caplog.records if "the log is" in record.getMessage()]
    assert said == [f"the log is waited for: {away}", "the log is there again"]
    assert ids(follow.view) == ["wf-1"]
    monkeypatch.undo()
    follow.view.close()
