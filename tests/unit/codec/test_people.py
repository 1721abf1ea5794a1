from __future__ import annotations

import pytest

from orchestrator.codec.people import ago, ranges, span_of, time_of, visible


def test_only_what_steers_a_terminal_is_spelled_out() -> None:
    assert visible("Zürich 東京 → ok") == "Zürich 東京 → ok"
    assert visible("a\n\tb\r\x1b[0m\x00") == "a\n\tb\\r\\x1b[0m\\x00"


@pytest.mark.parametrize(
    ("time_ms", "text"), [(None, ""), (0, ""), (1_700_000_000_123, "2023-11-14 22:13:20.123Z")]
)
def test_times_are_utc_and_sort_as_text(time_ms: int | None, text: str) -> None:
    assert time_of(time_ms) == text


@pytest.mark.parametrize(
    ("span_ms", "text"),
    [
        (0, "0 s"),
        (7, "0.007 s"),
        (59_999, "59.999 s"),
        (60_000, "1 min"),
        (200_500, "3 min 20 s"),
        (3_600_000, "1 h"),
        (90_060_000, "1 d 1 h"),
        (86_400_000 * 400, "400 d"),
    ],
)
def test_spans_have_their_two_largest_units(span_ms: int, text: str) -> None:
    assert span_of(span_ms) == text


@pytest.mark.parametrize(
    ("time_ms", "text"),
    [
        (1_000_000, "0 s ago"),
        (999_001, "0 s ago"),
        (941_000, "59 s ago"),
        (940_000, "1 min ago"),
        (1_005_000, "in 5 s"),
        (1_000_000 + 3 * 3_600_000, "in 3 h"),
    ],
)
def test_what_was_and_what_will_be(time_ms: int, text: str) -> None:
    assert ago(time_ms, 1_000_000) == text


def test_numbers_that_follow_each_other_are_a_range() -> None:
    assert ranges([7, 3, 1, 2, 0]) == "0-3, 7"
    assert ranges([]) == ""
