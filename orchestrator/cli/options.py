"""Options that several roles have: what they may be."""

from __future__ import annotations

from datetime import timedelta

from orchestrator.cli.exits import CommandUsage

MAX_RETENTION_DAYS = 100_000
"""Some 270 years: whoever wants to keep everything may."""


def slots_of(slots: int) -> int:
    """The number of activities that run at a time; raises CommandUsage."""
    if slots < 1:
        raise CommandUsage(f"--slots is {slots}; at least one is needed")
    return slots


def retention_of(days: float) -> timedelta:
    """How long closed runs are kept; raises CommandUsage."""
    if not 0 < days < MAX_RETENTION_DAYS:
        raise CommandUsage(f"--retention-days is {days:g}; it is above 0 and below {MAX_RETENTION_DAYS:,}")
    return timedelta(days=days)
