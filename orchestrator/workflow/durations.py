"""Durations as authors write them: seconds or ``timedelta``. The protocol has whole milliseconds."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.errors import UsageError

Duration = timedelta | float
"""Seconds, or a ``timedelta``."""

MAX_DURATION_MS = 100 * 366 * 86_400_000
"""A hundred years: a longer one is a mistake of units, and a sum of times still fits in 63 bits."""


def to_ms(value: Duration, name: str) -> int:
    """``value`` in milliseconds, rounded; ``name`` is what error messages call it.

    Raises:
        UsageError: it is no duration, negative, or longer than ``MAX_DURATION_MS``.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = value
    else:
        raise UsageError(f"{name} is {value!r}; give seconds or a timedelta")
    if not 0 <= seconds * 1_000 <= MAX_DURATION_MS:  # not a number is neither
        raise UsageError(
            f"{name} is {value!r}; it must be between 0 and {MAX_DURATION_MS // 86_400_000} days"
        )
    return round(seconds * 1_000)


def to_positive_ms(value: Duration | None, name: str) -> int | None:
    """As :func:`to_ms`, but None stays None, and what is shorter than a millisecond is refused."""
    if value is None:
        return None
    milliseconds = to_ms(value, name)
    if milliseconds == 0:
        raise UsageError(f"{name} is {value!r}; it must be at least a millisecond (None means no limit)")
    return milliseconds
