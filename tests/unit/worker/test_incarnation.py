from math import inf

import pytest
from msgspec.structs import replace

from orchestrator.log.aio import DeliveredBeat
from orchestrator.protocol.tasks import Beat, CoordinatorBeat, WorkerBeat
from orchestrator.worker.incarnation import (
    BEAT_INTERVAL_S,
    CHANGE_INTERVAL_S,
    FRESH_S,
    LOST_AFTER_BEATS,
    Incarnation,
    Load,
)

FIRST = WorkerBeat(
    worker="w1",
    identity="me",
    task_queues=("default",),
    slots=4,
    running=0,
    inbox=3,
    inbox_offset=0,
    number=0,
)
IDLE = Load(running=0, inbox_offset=0)
BUSY = Load(running=1, inbox_offset=1)


def coordinator(name: str = "c1") -> CoordinatorBeat:
    return CoordinatorBeat(coordinator=name, identity="", number=1, partitions=())


def read_back(incarnation: Incarnation, *beats: Beat) -> None:
    incarnation.read_back([DeliveredBeat(beat, 0, 0) for beat in beats])


def send(incarnation: Incarnation, now: float, load: Load = IDLE) -> WorkerBeat:
    beat = incarnation.next_beat(load, now)
    assert beat is not None
    incarnation.sent()
    return beat


@pytest.fixture
def incarnation() -> Incarnation:
    return Incarnation(FIRST)


def test_the_first_beat_is_due_at_once_and_shows_the_load(incarnation: Incarnation) -> None:
    beat = incarnation.next_beat(Load(2, 17, draining=True), now=100.0)
    assert beat is not None
    assert (beat.worker, beat.number, beat.regular) == ("w1", 1, True)
    assert (beat.running, beat.inbox_offset, beat.draining, beat.stopped) == (2, 17, True, False)


def test_there_is_no_other_beat_before_the_last_is_acknowledged(incarnation: Incarnation) -> None:
    incarnation.next_beat(IDLE, 0.0)
    assert incarnation.due_at(BUSY) == inf
    assert incarnation.next_beat(BUSY, 50.0) is None
    incarnation.sent()
    assert incarnation.next_beat(BUSY, 50.0) is not None


def test_regular_beats_come_once_per_second(incarnation: Incarnation) -> None:
    send(incarnation, 0.0)
    assert incarnation.due_at(IDLE) == BEAT_INTERVAL_S
    assert incarnation.next_beat(IDLE, 0.99) is None
    assert send(incarnation, 1.0).regular


def test_missed_beats_are_not_caught_up(incarnation: Incarnation) -> None:
    send(incarnation, 0.0)
    send(incarnation, 60.0)
    assert incarnation.next_beat(IDLE, 60.9) is None


def test_changes_are_merged_into_twenty_beats_per_second_that_are_not_regular(
    incarnation: Incarnation,
) -> None:
    send(incarnation, 0.0)
    beats = []
    for milliseconds in range(1, 1_000):
        beat = incarnation.next_beat(Load(running=milliseconds, inbox_offset=0), milliseconds / 1_000)
        if beat is not None:
            incarnation.sent()
            beats.append(beat)
    assert len(beats) <= 1 / CHANGE_INTERVAL_S
    assert len(beats) >= 1 / CHANGE_INTERVAL_S - 2
    assert not any(beat.regular for beat in beats)
    assert [beat.number for beat in beats] == list(range(2, len(beats) + 2))


def test_changes_do_not_put_off_the_regular_beat(incarnation: Incarnation) -> None:
    send(incarnation, 0.0)
    assert not send(incarnation, 0.98, BUSY).regular
    assert incarnation.due_at(BUSY) == incarnation.due_at(IDLE) == 1.0
    assert send(incarnation, 1.0, BUSY).regular


def test_nothing_may_start_before_a_beat_came_back(incarnation: Incarnation) -> None:
    assert not incarnation.may_start(0.0)
    beat = send(incarnation, 0.0)
    assert not incarnation.may_start(0.1), "an acknowledgement alone does not show what lies between"
    read_back(incarnation, beat)
    assert incarnation.may_start(0.2)


def test_nothing_may_start_five_seconds_after_the_last_beat_that_came_back_was_sent(
    incarnation: Incarnation,
) -> None:
    first = send(incarnation, 10.0)
    read_back(incarnation, first)
    send(incarnation, 14.9)
    assert incarnation.may_start(10.0 + FRESH_S - 0.01)
    assert not incarnation.may_start(10.0 + FRESH_S)


def test_beats_of_changes_are_no_signs_of_life(incarnation: Incarnation) -> None:
    read_back(incarnation, send(incarnation, 0.0))
    read_back(incarnation, send(incarnation, 0.9, BUSY))
    assert not incarnation.may_start(FRESH_S)


def test_a_beat_of_another_worker_proves_nothing(incarnation: Incarnation) -> None:
    send(incarnation, 0.0)
    read_back(incarnation, Incarnation(replace(FIRST, worker="w2")).last_beat(IDLE, 0.0))
    assert not incarnation.may_start(0.1)


@pytest.mark.parametrize(
    ("between", "lost"),
    [
        (["c1"] * (LOST_AFTER_BEATS - 1), False),
        (["c1"] * LOST_AFTER_BEATS, True),
        (["c1", "c2", "c3"] * (LOST_AFTER_BEATS - 1), False),
        (["c2", *["c1"] * LOST_AFTER_BEATS], True),
    ],
)
def test_lost_means_six_beats_of_one_coordinator_between_two_of_mine(
    incarnation: Incarnation, between: list[str], lost: bool
) -> None:
    read_back(incarnation, send(incarnation, 0.0))
    for name in between:
        read_back(incarnation, coordinator(name))
    assert not incarnation.lost, "only a beat of its own shows that the log goes on for it"
    read_back(incarnation, send(incarnation, 30.0))
    assert incarnation.lost is lost
    assert incarnation.may_start(30.1) is not lost


def test_what_was_before_its_first_beat_does_not_concern_it(incarnation: Incarnation) -> None:
    read_back(incarnation, *[coordinator()] * 50)
    read_back(incarnation, send(incarnation, 0.0))
    assert not incarnation.lost


def test_counts_start_anew_at_each_of_its_beats(incarnation: Incarnation) -> None:
    for second in range(10):
        read_back(incarnation, send(incarnation, float(second)), *[coordinator()] * 3)
    assert not incarnation.lost


def test_a_beat_of_a_change_does_not_interrupt_the_count(incarnation: Incarnation) -> None:
    read_back(incarnation, send(incarnation, 0.0), *[coordinator()] * 3)
    read_back(incarnation, send(incarnation, 0.5, BUSY), *[coordinator()] * 3)
    read_back(incarnation, send(incarnation, 9.0, BUSY))
    assert incarnation.lost


def test_a_broker_outage_loses_nobody_however_long(incarnation: Incarnation) -> None:
    read_back(incarnation, send(incarnation, 0.0), coordinator())
    read_back(incarnation, coordinator(), send(incarnation, 3_600.0))
    assert not incarnation.lost
    assert incarnation.may_start(3_600.1)


def test_a_lost_incarnation_stays_lost(incarnation: Incarnation) -> None:
    read_back(incarnation, send(incarnation, 0.0))
    incarnation.give_up()
    read_back(incarnation, send(incarnation, 1.0))
    assert not incarnation.may_start(1.1)


def test_the_last_beat_is_regular_and_says_goodbye(incarnation: Incarnation) -> None:
    send(incarnation, 0.0)
    beat = incarnation.last_beat(BUSY, 0.1)
    assert (beat.number, beat.regular, beat.draining, beat.stopped, beat.running) == (2, True, True, True, 1)
