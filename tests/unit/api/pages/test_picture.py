from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from orchestrator.api.pages.picture import (
    CUT_WIDTH,
    MAX_CUTS,
    MAX_LONGEST,
    MAX_MARKED,
    MAX_ROWS,
    WIDTH,
    Picture,
    Row,
    Scale,
    draw,
)
from orchestrator.api.pages.timeline import Gap, Kind, Outcome
from orchestrator.protocol import events as e
from orchestrator.protocol.values import Payload, RetryState

from .runs import FAILED, Told, dispatched, scheduled

ABOUT = pytest.approx
NARROW = 0.001
"""Rounding of floats."""

HOUR_MS = 3_600_000


@st.composite
def runs(draw: st.DrawFn) -> Told:
    """A run in which anything that the engine allows may happen, after any time."""
    run = Told()
    waiting: list[int] = []
    running: list[int] = []
    timers: list[int] = []
    attempts: Counter[int] = Counter()
    at_ms, last = 0, 0

    def start() -> e.Event:
        nonlocal last
        last += 1
        now = draw(st.booleans())
        (running if now else waiting).append(last)
        attempts[last] = 1
        return scheduled(last, draw(st.sampled_from(["charge", "ship", "<b>"])), worker="w" if now else "")

    def dispatch() -> e.Event:
        one = waiting.pop(draw(st.integers(0, len(waiting) - 1)))
        running.append(one)
        return dispatched(one, attempt=attempts[one])

    def fail() -> e.Event:
        one = running.pop(draw(st.integers(0, len(running) - 1)))
        waiting.append(one)
        attempts[one] += 1
        return e.ActivityAttemptFailed(
            activity_id=one, attempt=attempts[one] - 1, failure=FAILED, retry_time_ms=0
        )

    def complete() -> e.Event:
        return e.ActivityCompleted(activity_id=running.pop())

    def give_up() -> e.Event:
        return e.ActivityTimedOut(activity_id=waiting.pop(), failure=FAILED, retry_state=RetryState.TIMEOUT)

    def timer() -> e.Event:
        nonlocal last
        last += 1
        timers.append(last)
        return e.TimerStarted(timer_id=last, fire_time_ms=at_ms + 1_000)

    def fire() -> e.Event:
        return e.TimerFired(timer_id=timers.pop())

    def signal() -> e.Event:
        return e.WorkflowSignaled(signal_name=draw(st.sampled_from(["approve", "hurry"])))

    for _ in range(draw(st.integers(0, 40))):
        at_ms += draw(st.sampled_from([0, 1, 5, 100, 2_000, HOUR_MS, 90 * 24 * HOUR_MS]))
        moves = [start, timer, signal]
        moves += [dispatch, give_up] if waiting else []
        moves += [fail, complete] if running else []
        moves += [fire] if timers else []
        run.turn(at_ms, draw(st.sampled_from(moves))())
    if draw(st.booleans()):
        run.turn(at_ms + draw(st.sampled_from([0, 7, HOUR_MS])), e.WorkflowCompleted())
    return run


def drawn(run: Told, after_ms: int = 50) -> Picture:
    return draw(run.timeline, run.timeline.last_ms + after_ms)


def bars_in(picture: Picture, kind: Kind) -> int:
    return sum(row.many for row in picture.rows if row.kind is kind)


@given(runs(), st.sampled_from([0, 50, 1_000 * HOUR_MS]))
@settings(deadline=None, max_examples=60)
def test_everything_is_in_the_drawing_and_within_it(run: Told, after_ms: int) -> None:
    picture = drawn(run, after_ms)
    assert bars_in(picture, Kind.ACTIVITY) == len(run.timeline.activities)
    assert bars_in(picture, Kind.TIMER) == len(run.timeline.timers)
    assert bars_in(picture, Kind.SIGNAL) == sum(map(len, run.timeline.marks.values()))
    assert {row.id for row in picture.rows if row.kind is Kind.ACTIVITY} == set(run.timeline.activities)
    for row in picture.rows:
        assert row.x >= 0
        assert row.x + row.width <= WIDTH + NARROW
        for part in row.parts:
            assert part.x >= 0
            assert part.right <= WIDTH + NARROW


@given(runs(), st.sampled_from([0, 50, 1_000 * HOUR_MS]))
@settings(deadline=None, max_examples=60)
def test_attempts_lie_within_their_bar_one_after_the_other(run: Told, after_ms: int) -> None:
    for row in drawn(run, after_ms).rows:
        if row.kind is not Kind.ACTIVITY:
            continue
        for before, part in zip(row.parts, row.parts[1:], strict=False):
            assert before.x <= part.x + NARROW
        for part in row.parts:
            assert row.x - NARROW <= part.x
            assert part.right <= row.x + row.width + NARROW


@given(runs(), st.sampled_from([0, 50, 1_000 * HOUR_MS]))
@settings(deadline=None, max_examples=60)
def test_the_order_of_time_survives_the_cuts(run: Told, after_ms: int) -> None:
    timeline = run.timeline
    end_ms = timeline.end_ms(timeline.last_ms + after_ms)
    scale = Scale(timeline.start_ms, end_ms, timeline.gaps(end_ms))
    times = sorted({turn.time_ms for turn in run.turns} | {end_ms, end_ms - 1, 1})
    places = [scale.x(time_ms) for time_ms in times]
    assert all(left <= right + NARROW for left, right in itertools.pairwise(places))
    assert scale.x(timeline.start_ms) == 0
    assert scale.x(end_ms) == ABOUT(WIDTH) or end_ms == timeline.start_ms
    for left, right in zip(scale.cuts, scale.cuts[1:], strict=False):
        assert left.x + left.width <= right.x + NARROW
    rows = drawn(run, after_ms).rows[1:]
    assert [row.start_ms for row in rows] == sorted(row.start_ms for row in rows)


def test_a_long_idle_time_is_cut_and_says_how_long_it_was() -> None:
    run = Told()
    run.turn(10, scheduled(1, worker="w"))
    run.turn(500, e.ActivityCompleted(activity_id=1))
    run.turn(500 + 76 * HOUR_MS, e.WorkflowSignaled(signal_name="approve"))
    run.turn(1_000 + 76 * HOUR_MS, e.WorkflowCompleted())
    picture = drawn(run)
    (cut,) = [cut for cut in picture.cuts if cut.length_ms > HOUR_MS]
    assert (cut.width, cut.length_ms) == (CUT_WIDTH, 76 * HOUR_MS)
    activity = next(row for row in picture.rows if row.kind is Kind.ACTIVITY)
    assert activity.width > 30  # 490 ms of 76 hours would not be seen


def test_less_than_a_second_is_not_cut() -> None:
    run = Told()
    run.turn(990, e.WorkflowSignaled(signal_name="approve"))
    run.turn(991, e.WorkflowCompleted())
    assert drawn(run).cuts == ()


def test_what_is_tried_for_three_days_is_not_idle() -> None:
    run = Told()
    run.turn(10, scheduled(1, worker="w"))
    run.turn(76 * HOUR_MS, e.ActivityCompleted(activity_id=1), e.WorkflowCompleted())
    assert drawn(run).cuts == ()


def test_a_run_that_does_nothing_but_wait_fills_the_width() -> None:
    run = Told()
    picture = drawn(run, after_ms=HOUR_MS)
    (cut,) = picture.cuts
    assert (cut.x, cut.width) == (0, WIDTH)
    assert picture.rows[0].width == WIDTH


def test_no_more_is_cut_than_leaves_half_of_the_width() -> None:
    ends = [4**number * 1_000 for number in range(1, 3 * MAX_CUTS)]
    gaps = [Gap(before, end - 1) for before, end in itertools.pairwise(ends)]
    scale = Scale(0, ends[-1], reversed(gaps))
    assert len(scale.cuts) == MAX_CUTS
    assert MAX_CUTS * CUT_WIDTH <= WIDTH / 2


def test_ten_thousand_activities_are_folded_and_those_of_interest_are_not() -> None:
    run = Told()
    run.turn(1, *(scheduled(number, worker="w") for number in range(1, 10_001)))
    run.turn(
        2,
        e.ActivityFailed(activity_id=77, failure=FAILED, retry_state=RetryState.NON_RETRYABLE_FAILURE),
        *(e.ActivityCompleted(activity_id=number) for number in range(1, 10_000) if number != 77),
    )
    picture = drawn(run)
    assert len(picture.rows) <= MAX_ROWS
    assert bars_in(picture, Kind.ACTIVITY) == 10_000
    (group,) = [row for row in picture.rows if row.many > 1]
    folded = 10_000 - 2 - MAX_LONGEST
    assert (group.name, group.many, group.outcomes) == ("charge", folded, ((Outcome.DONE, folded),))
    assert {77, 10_000} <= {row.id for row in picture.rows if row.many == 1}
    assert sum(len(row.parts) for row in picture.rows) < 1_000


def test_a_folded_row_shows_that_some_of_it_went_wrong() -> None:
    run = Told()
    for number in range(1, 2_001):
        run.turn(number, scheduled(number, worker="w"))
        run.turn(
            number,
            e.ActivityFailed(activity_id=number, failure=FAILED, retry_state=RetryState.NON_RETRYABLE_FAILURE)
            if number % 2
            else e.ActivityCompleted(activity_id=number),
        )
    group = next(row for row in drawn(run).rows if row.many > 1)
    assert group.outcome is Outcome.FAILED
    assert dict(group.outcomes)[Outcome.FAILED] == 1_000 - MAX_MARKED


def names(picture: Picture) -> list[Row]:
    return [row for row in picture.rows if row.kind in (Kind.SIGNAL, Kind.EVENT)]


def test_thousands_of_names_do_not_make_thousands_of_rows() -> None:
    run = Told()
    for number in range(1, 3_001):
        run.turn(number, scheduled(number, f"step-{number}", worker="w"))
        run.turn(number, e.WorkflowSignaled(signal_name=f"signal-{number}"))
    picture = drawn(run)
    assert len(picture.rows) <= MAX_ROWS
    assert bars_in(picture, Kind.ACTIVITY) == bars_in(picture, Kind.SIGNAL) == 3_000
    assert any(row.name == "others" for row in names(picture))


def test_ten_thousand_signals_are_some_hundred_marks() -> None:
    run = Told()
    for number in range(1, 10_001):
        run.turn(number, e.WorkflowSignaled(signal_name="tick"))
    (row,) = names(drawn(run))
    assert row.many == 10_000
    assert sum(mark.many for mark in row.parts) == 10_000
    assert len(row.parts) <= 250


def test_thousands_that_are_alike_are_a_screen_full() -> None:
    run = Told()
    run.turn(1, *(scheduled(number, worker="w") for number in range(1, 3_001)))
    for number in range(1, 3_001):
        run.turn(number + 1, e.ActivityCompleted(activity_id=number))
    rows = drawn(run).rows[1:]
    assert [row.many for row in rows if row.many > 1] == [3_000 - MAX_LONGEST]
    assert sorted(row.id for row in rows if row.many == 1) == list(range(3_001 - MAX_LONGEST, 3_001))


def test_the_worst_drawing_has_no_more_rows_than_are_promised() -> None:
    run = Told()
    failed = e.ActivityFailed(activity_id=0, failure=FAILED, retry_state=RetryState.NON_RETRYABLE_FAILURE)
    for number in range(1, 1_001):
        run.turn(number, scheduled(number, f"step-{number // 5}", worker="w"))
        run.turn(
            number,
            replace(failed, activity_id=number) if number % 2 else e.ActivityCompleted(activity_id=number),
        )
        run.turn(number, e.WorkflowSignaled(signal_name=f"s{number}"))
        run.turn(number, e.EventPublished(topic=f"t{number}", key=b"", payload=Payload(data=b"1")))
    assert len(drawn(run).rows) <= MAX_ROWS
