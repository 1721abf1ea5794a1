"""Options that several roles have: what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from cyclopts import Parameter

from orchestrator.cli.exits import CommandUsage
from orchestrator.telemetry.logs import Format, Level, log_to_stderr

MAX_RETENTION_DAYS = 100_000
"""Some 270 years: whoever wants to keep everything may."""


@Parameter(name="*")
@dataclass(frozen=True)
class Logging:
    """What is logged, and how.

    Parameters
    ----------
    log_level:
        What is logged on stderr.
    log_format:
        Text for people, or one JSON object per line, with the ids of workflows and runs.
    """

    log_level: Level = "info"
    log_format: Format = "text"

    def begin(self) -> None:
        """Log so from now on."""
        log_to_stderr(self.log_level, self.log_format)


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
