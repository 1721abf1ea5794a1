from __future__ import annotations

import pytest

from orchestrator.coordinator.clock_check import KEPT_BEATS, MAX_SKEW_MS, ClockCheck

NOON_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("sent_ms", "append_ms", "read_ms", "skew_ms"),
    [
        (0, 1, 2, 0),
        (0, 60_000, 60_001, 0),  # the broker was away for a minute
        (0, 1, 60_000, 0),  # this process was paused for a minute
        (6_001, 1_000, 6_002, 5_001),  # ahead
        (0, 7_000, 1, -6_999),  # behind
        (5_000, 0, 5_001, 5_000),
    ],
)
def test_only_what_no_delay_explains_is_skew(
    sent_ms: int, append_ms: int, read_ms: int, skew_ms: int
) -> None:
    check = ClockCheck()
    check.sent(1, NOON_MS + sent_ms)
    check.read(1, NOON_MS + append_ms, NOON_MS + read_ms)
    assert check.skew_ms == skew_ms
    assert check.trusted == (abs(skew_ms) <= MAX_SKEW_MS)


def test_a_clock_that_was_put_right_is_trusted_again() -> None:
    check = ClockCheck()
    check.sent(1, NOON_MS + 60_000)
    check.read(1, NOON_MS, NOON_MS + 60_001)
    assert not check.trusted
    check.sent(2, NOON_MS + 1_000)
    check.read(2, NOON_MS + 1_000, NOON_MS + 1_001)
    assert check.trusted


def test_a_beat_that_took_long_does_not_acquit_a_clock() -> None:
    check = ClockCheck()
    check.sent(1, NOON_MS + 60_000)
    check.read(1, NOON_MS, NOON_MS + 60_001)
    check.sent(2, NOON_MS + 62_000)
    check.read(2, NOON_MS + 61_000, NOON_MS + 121_000)  # it waited for a minute to be appended
    assert not check.trusted


def test_beats_that_never_came_back_are_passed_over() -> None:
    check = ClockCheck()
    for number in range(1, 2 * KEPT_BEATS):
        check.sent(number, NOON_MS + number)
    check.read(1, NOON_MS + 90_000, NOON_MS)
    assert check.skew_ms == 0, "it is not remembered any more"
    check.read(2 * KEPT_BEATS - 1, NOON_MS + 90_000, NOON_MS)
    assert not check.trusted
