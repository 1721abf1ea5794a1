"""Which worker gets what: shares, borrowing, returns, deaths and the backlog."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.coordinator.dispatch import LOST_AFTER_BEATS, ActivityRef, Dispatcher
from orchestrator.protocol.tasks import CoordinatorBeat, QueueBacklog, WorkerBeat


def ref(number: int, partition: int = 0) -> ActivityRef:
    return ActivityRef(partition, "wf", "run", number)


class Fleet:
    """A dispatcher named "me", and the beats that it reads."""

    def __init__(self) -> None:
        self.dispatcher = Dispatcher("me")
        self.number = 0

    def worker(self, name: str = "w", **fields: Any) -> list[str]:
        values: dict[str, Any] = {
            "worker": name,
            "identity": "",
            "task_queues": ("q",),
            "slots": 4,
            "running": 0,
            "inbox": 5,
            "inbox_offset": 100,
            "number": 1,
        }
        return self.dispatcher.on_beat(WorkerBeat(**values | fields))

    def coordinator(self, name: str = "me", number: int = 0, **fields: Any) -> list[str]:
        beat = CoordinatorBeat(coordinator=name, identity="", number=number, partitions=(), **fields)
        return self.dispatcher.on_beat(beat)

    def take(self, *numbers: int, queue: str = "q") -> list[str | None]:
        """Who gets each."""
        offers = [self.dispatcher.take(ref(number), queue) for number in numbers]
        return [offer[0] if offer else None for offer in offers]

    def assign(self, *partitions: int, limit: int = 1_000) -> list[tuple[int, str]]:
        found = self.dispatcher.assign(partitions or (0,), limit)
        return [(got.activity_id, worker) for got, worker, _ in found]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


# ------------------------------------------------------------------------------------------- slots


def test_without_a_worker_of_the_queue_there_is_no_offer(fleet: Fleet) -> None:
    assert fleet.take(1) == [None]
    fleet.worker(task_queues=("other",))
    assert fleet.take(1) == [None]


def test_an_offer_names_the_inbox(fleet: Fleet) -> None:
    fleet.worker(inbox=9)
    assert fleet.dispatcher.take(ref(1), "q") == ("w", 9)


def test_alone_a_coordinator_uses_all_slots_and_no_more(fleet: Fleet) -> None:
    fleet.worker(slots=3, running=3)
    assert fleet.take(1, 2, 3, 4) == ["w", "w", "w", None]
    fleet.dispatcher.freed(ref(2), "w")
    assert fleet.take(4, 5) == ["w", None]


def test_workers_of_a_queue_take_turns(fleet: Fleet) -> None:
    fleet.worker("a")
    fleet.worker("b")
    assert fleet.take(1, 2, 3, 4) == ["a", "b", "a", "b"]


@pytest.mark.parametrize(("peers", "share"), [(1, 5), (2, 3), (3, 2), (6, 1)])
def test_the_share_is_slots_over_coordinators(fleet: Fleet, peers: int, share: int) -> None:
    """``me`` sorts first, so beat 0 gives it the first of the remainder."""
    for number in range(1, peers):
        fleet.coordinator(f"x{number}")
    fleet.worker(slots=5, running=5)
    assert fleet.take(*range(6)).count("w") == share


def test_the_remainder_rotates_by_beat(fleet: Fleet) -> None:
    fleet.coordinator("x")
    shares = []
    for number in range(4):
        fleet.coordinator(number=number)
        fleet.coordinator("x")
        fleet.worker(slots=3, running=3)
        taken = range(10)
        shares.append(fleet.take(*taken).count("w"))
        for one in taken:
            fleet.dispatcher.freed(ref(one), "w")
    assert shares == [2, 1, 2, 1]


def test_idle_slots_beyond_the_share_are_borrowed(fleet: Fleet) -> None:
    fleet.coordinator("x")
    fleet.worker(slots=4, running=0)
    assert fleet.take(*range(8)).count("w") == 4


def test_nothing_is_borrowed_before_a_beat_covers_the_last_dispatch(fleet: Fleet) -> None:
    fleet.coordinator("x")
    fleet.worker(slots=4, running=1, inbox_offset=100)
    fleet.dispatcher.dispatched("w", 100)
    assert fleet.take(*range(8)).count("w") == 2
    fleet.worker(slots=4, running=3, inbox_offset=101)
    assert fleet.take(8, 9) == ["w", None]


def test_a_stopped_peer_leaves_its_share_and_a_silent_one_too(fleet: Fleet) -> None:
    fleet.coordinator("x")
    fleet.coordinator("y")
    fleet.worker(slots=6, running=6)
    assert fleet.take(1, 2, 3) == ["w", "w", None]
    fleet.coordinator("x", stopped=True)
    assert fleet.take(3, 4) == ["w", None]
    for number in range(2 * LOST_AFTER_BEATS):
        fleet.coordinator(number=number)
        fleet.worker(slots=6, running=6)
    assert fleet.take(4, 5, 6, 7) == ["w", "w", "w", None]


@pytest.mark.parametrize("state", ["draining", "stopped"])
def test_a_worker_that_goes_gets_nothing(fleet: Fleet, state: str) -> None:
    fleet.worker(**{state: True})
    assert fleet.take(1) == [None]
    fleet.worker()
    assert fleet.take(1) == [None], "an incarnation does not come back"


def test_a_worker_that_gave_something_back_gets_nothing_before_it_beats(fleet: Fleet) -> None:
    fleet.worker()
    fleet.worker("w2")
    fleet.take(1)
    fleet.dispatcher.freed(ref(1), "w")
    fleet.dispatcher.refused("w")
    assert fleet.take(1, 2, 3) == ["w2"] * 3
    fleet.worker()
    assert "w" in fleet.take(4, 5)


def test_what_history_says_is_taken_counts(fleet: Fleet) -> None:
    for number in range(4):
        fleet.dispatcher.taken(ref(number), "w")
    assert fleet.take(9) == [None]
    fleet.worker(slots=4, running=4)
    assert fleet.take(9) == [None]


# ------------------------------------------------------------------------------------------- deaths


def test_a_worker_is_lost_after_six_of_ones_own_beats(fleet: Fleet) -> None:
    fleet.worker()
    fleet.take(1)
    for number in range(LOST_AFTER_BEATS - 1):
        assert fleet.coordinator(number=number) == []
        assert fleet.dispatcher.workers_to_lose(0, unseen=False) == []
    assert fleet.coordinator() == ["w"]
    assert fleet.dispatcher.workers_to_lose(0, unseen=False) == ["w"]
    assert fleet.dispatcher.workers_to_lose(1, unseen=False) == []
    assert fleet.take(2) == [None]


def test_beats_of_others_bury_nobody_and_a_beat_of_its_own_saves_it(fleet: Fleet) -> None:
    fleet.worker()
    for _ in range(20):
        fleet.coordinator("x")
    for _ in range(3):
        for _ in range(LOST_AFTER_BEATS - 1):
            assert fleet.coordinator() == []
        fleet.worker()


def test_a_stopped_worker_is_lost_at_once(fleet: Fleet) -> None:
    fleet.worker()
    fleet.take(1)
    assert fleet.worker(stopped=True) == ["w"]
    assert fleet.dispatcher.workers_to_lose(0, unseen=False) == ["w"]


def test_a_lost_worker_that_beats_again_stays_lost_while_it_holds_something(fleet: Fleet) -> None:
    fleet.worker()
    fleet.take(1)
    for _ in range(LOST_AFTER_BEATS):
        fleet.coordinator()
    fleet.worker()
    assert fleet.dispatcher.workers_to_lose(0, unseen=False) == ["w"]
    assert fleet.take(2) == [None]


def test_a_worker_that_was_never_seen_is_lost_after_six_beats_or_if_asked_for(fleet: Fleet) -> None:
    fleet.dispatcher.taken(ref(1), "ghost")
    assert fleet.dispatcher.workers_to_lose(0, unseen=False) == []
    assert fleet.dispatcher.workers_to_lose(0, unseen=True) == ["ghost"]
    for _ in range(LOST_AFTER_BEATS):
        fleet.coordinator()
    assert fleet.dispatcher.workers_to_lose(0, unseen=False) == ["ghost"]
    assert fleet.dispatcher.open_on("ghost", 0) == [ref(1)]
    assert fleet.dispatcher.open_on("ghost", 1) == fleet.dispatcher.open_on("nobody", 0) == []


def test_a_lost_worker_without_attempts_is_forgotten(fleet: Fleet) -> None:
    fleet.worker()
    for _ in range(LOST_AFTER_BEATS + 1):
        fleet.coordinator()
    assert fleet.dispatcher._workers == {}
    assert fleet.dispatcher._by_queue == {"q": []}


# ------------------------------------------------------------------------------------------ backlog


def test_what_waits_goes_by_priority_then_by_age(fleet: Fleet) -> None:
    for number, priority, since_ms in [(1, 0, 50), (2, 5, 1), (3, 1, 60), (4, 3, 40), (5, 1, 60)]:
        fleet.dispatcher.wait(ref(number), "q", priority, since_ms)
    fleet.worker(slots=5, running=5)
    assert [number for number, _ in fleet.assign()] == [3, 5, 4, 1, 2]


def test_nothing_overtakes_what_waits(fleet: Fleet) -> None:
    fleet.dispatcher.wait(ref(1), "q", 0, 0)
    fleet.worker(slots=1)
    assert fleet.take(2) == [None]
    assert fleet.take(2, queue="other") == [None]
    assert fleet.assign() == [(1, "w")]
    assert not fleet.dispatcher.has_backlog


def test_assigned_are_at_most_the_limit_and_the_slots(fleet: Fleet) -> None:
    for number in range(6):
        fleet.dispatcher.wait(ref(number), "q", 0, number)
    fleet.worker(slots=4, running=4)
    assert fleet.assign(limit=3) == [(0, "w"), (1, "w"), (2, "w")]
    assert fleet.assign() == [(3, "w")]
    assert fleet.assign() == []
    assert fleet.dispatcher.backlogs() == (QueueBacklog(task_queue="q", waiting=2, oldest_time_ms=4),)


def test_waiting_twice_is_waiting_once(fleet: Fleet) -> None:
    fleet.dispatcher.wait(ref(1), "q", 0, 0)
    fleet.dispatcher.wait(ref(1), "q", 0, 0)
    fleet.worker()
    assert fleet.assign() == [(1, "w")]
    assert fleet.assign() == []


def test_what_is_gone_gets_nothing_and_is_not_counted(fleet: Fleet) -> None:
    for number in range(3):
        fleet.dispatcher.wait(ref(number), "q", 0, number)
    fleet.dispatcher.gone(ref(0))
    fleet.dispatcher.gone(ref(7))
    assert fleet.dispatcher.backlogs() == (QueueBacklog(task_queue="q", waiting=2, oldest_time_ms=1),)
    fleet.worker()
    assert fleet.assign() == [(1, "w"), (2, "w")]


def test_what_is_gone_takes_no_memory_for_long(fleet: Fleet) -> None:
    fleet.dispatcher.wait(ref(0), "q", 1, 0)
    for number in range(1, 10_000):
        fleet.dispatcher.wait(ref(number), "q", 0, number)
        fleet.dispatcher.gone(ref(number))
    assert len(fleet.dispatcher._backlog["q"]) <= 1_003


def test_only_what_belongs_to_the_given_partitions_is_assigned(fleet: Fleet) -> None:
    fleet.dispatcher.wait(ref(1, partition=1), "q", 0, 0)
    fleet.dispatcher.wait(ref(2, partition=0), "q", 0, 1)
    fleet.worker()
    assert fleet.assign(0) == [(2, "w")]
    assert fleet.assign(1) == [(1, "w")]


def test_a_dropped_partition_frees_its_slots_and_its_places(fleet: Fleet) -> None:
    fleet.worker(slots=2, running=2)
    fleet.dispatcher.taken(ref(1, partition=0), "w")
    fleet.dispatcher.taken(ref(1, partition=1), "w")
    fleet.dispatcher.wait(ref(2, partition=0), "q", 0, 0)
    fleet.dispatcher.drop_partition(0)
    assert fleet.dispatcher.backlogs() == ()
    assert fleet.take(3, 4) == ["w", None]
    fleet.dispatcher.wait(ref(2, partition=0), "q", 0, 0)
    assert fleet.dispatcher.backlogs()[0].waiting == 1


# ------------------------------------------------------------------------------------------ property


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_no_slot_leaks_and_nothing_is_given_twice(seed: int) -> None:
    """Random life; in the end all is closed, and all slots are free."""
    rng, fleet = Random(seed), Fleet()
    with_worker: dict[ActivityRef, str] = {}
    waiting: set[ActivityRef] = set()
    number = 0
    for _ in range(200):
        move = rng.choice(["new", "new", "assign", "end", "beat", "gone", "drop", "own", "return"])
        if move == "new":
            number += 1
            new = ref(number, rng.randint(0, 2))
            offer = fleet.dispatcher.take(new, rng.choice("ab"))
            if offer is not None:
                with_worker[new] = offer[0]
            else:
                fleet.dispatcher.wait(new, rng.choice("ab"), rng.randint(0, 5), number)
                waiting.add(new)
        elif move == "assign":
            for got, worker, _ in fleet.dispatcher.assign((0, 1, 2), rng.randint(0, 9)):
                assert got in waiting
                waiting.remove(got)
                with_worker[got] = worker
        elif move in ("end", "return") and with_worker:
            got = rng.choice(sorted(with_worker))
            worker = with_worker.pop(got)
            fleet.dispatcher.freed(got, worker)
            if move == "return":
                fleet.dispatcher.refused(worker)
                fleet.dispatcher.wait(got, "a", 0, 0)
                waiting.add(got)
        elif move == "gone" and waiting:
            got = rng.choice(sorted(waiting))
            waiting.remove(got)
            fleet.dispatcher.gone(got)
        elif move == "beat":
            queues = tuple(rng.sample("ab", rng.randint(1, 2)))
            fleet.worker(rng.choice("xyz"), task_queues=queues, slots=rng.randint(0, 4))
        elif move == "own":
            fleet.coordinator(number=rng.randint(0, 99))
        elif move == "drop":
            partition = rng.randint(0, 2)
            fleet.dispatcher.drop_partition(partition)
            with_worker = {r: w for r, w in with_worker.items() if r.partition != partition}
            waiting = {r for r in waiting if r.partition != partition}
        held = {r: n for n, worker in fleet.dispatcher._workers.items() for r in worker.open}
        assert held == with_worker
        assert sum(queue.waiting for queue in fleet.dispatcher.backlogs()) == len(waiting)
    for got, worker in with_worker.items():
        fleet.dispatcher.freed(got, worker)
    assert not any(worker.open for worker in fleet.dispatcher._workers.values())
