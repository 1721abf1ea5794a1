"""Times, spans, numbers and texts as people read them. No clock: now is an argument."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby, pairwise


def visible(text: str) -> str:
    """A text of somebody else's for a terminal: what would move the cursor or set colours is spelled out.

    Lines and tabs stay. Half a character, which no terminal can be told, is spelled out too.
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in "\n\t" else sign.encode("unicode_escape").decode()
        for sign in text
    )


def time_of(time_ms: int | None) -> str:
    """A time as people write it, in UTC; "" if there is none."""
    if not time_ms:
        return ""
    return datetime.fromtimestamp(time_ms / 1_000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def ago(time_ms: int, now_ms: int) -> str:
    """How long ago something was, or in how long it will be, in one unit: ``3 min ago``, ``in 5 s``."""
    span_ms = abs(now_ms - time_ms)
    size, name = next((unit for unit in _UNITS if span_ms >= unit[0]), _UNITS[-1])
    words = f"{span_ms // size} {name}"
    return f"in {words}" if time_ms > now_ms else f"{words} ago"


def span_of(span_ms: int) -> str:
    """How long something takes, in its two largest units: ``1.25 s``, ``3 min 20 s``, ``2 d 4 h``."""
    for (large, name), (small, small_name) in pairwise(_UNITS):
        if span_ms >= large:
            rest = span_ms % large // small
            return f"{span_ms // large} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{span_ms / 1_000:.5g} s"


_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"))


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as people write them: ``0-3, 7``."""
    runs = groupby(enumerate(sorted(numbers)), key=lambda item: item[1] - item[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ends)
