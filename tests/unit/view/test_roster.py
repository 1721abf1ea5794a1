"""Who beats, and who is gone."""

from __future__ import annotations

from orchestrator.protocol.tasks import CoordinatorBeat, WorkerBeat
from orchestrator.view.roster import FORGOTTEN_AFTER_MS, Roster


def worker(name: str, **fields: object) -> WorkerBeat:
    return WorkerBeat(
        **{
            "worker": name, "identity": "me", "task_queues": ("q",), "slots": 1, "running": 0, "inbox": 0,
            "inbox_offset": 0, "number": 1,
        }
        | fields
    )  # type: ignore[arg-type]  # fmt: skip


def coordinator(name: str, **fields: object) -> CoordinatorBeat:
    return CoordinatorBeat(
        **{"coordinator": name, "identity": "", "number": 1, "partitions": ()} | fields  # type: ignore[arg-type]
    )


def names(roster: Roster, now_ms: int) -> list[str]:
    return [seen.beat.worker for seen in roster.workers(now_ms)]


def test_the_last_beat_of_each_counts() -> None:
    roster = Roster()
    roster.take(worker("b"), 10)
    roster.take(worker("a", running=1), 20)
    roster.take(worker("a", running=2), 30)
    roster.take(coordinator("c"), 30)
    assert [(seen.beat.running, seen.silent_ms) for seen in roster.workers(50)] == [(2, 20), (0, 40)]
    assert [seen.beat.coordinator for seen in roster.coordinators(50)] == ["c"]


def test_who_says_that_it_stops_is_gone_at_once() -> None:
    roster = Roster()
    roster.take(worker("a"), 10)
    roster.take(coordinator("c"), 10)
    roster.take(worker("a", stopped=True), 11)
    roster.take(coordinator("c", stopped=True), 11)
    assert roster.workers(11) == roster.coordinators(11) == ()


def test_who_is_silent_is_not_shown_for_ever_and_takes_no_memory() -> None:
    roster = Roster()
    roster.take(worker("a"), 0)
    assert names(roster, FORGOTTEN_AFTER_MS) == ["a"]
    assert names(roster, FORGOTTEN_AFTER_MS + 1) == []
    roster.take(worker("b"), FORGOTTEN_AFTER_MS + 1)
    assert list(roster._beats) == ["b"]
