"""Options that several roles have: what they may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any

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


def bounded(name: str, least: float, most: float = float("inf")) -> Callable[[Any, float | None], None]:
    """A validator of a parameter, which raises CommandUsage: what the option ``name`` may be, both included.

    None is an option that was not given.
    """

    def check(_: Any, value: float | None) -> None:
        if value is not None and not least <= value <= most:
            bounds = f"at least {least:g}" if most == float("inf") else f"from {least:g} to {most:,g}"
            raise CommandUsage(f"{name} is {value:g}; it is {bounds}")

    return check


Limit = Annotated[int, Parameter(help="At most so many; 0 for all.", validator=bounded("--limit", 0))]


Slots = Annotated[int, Parameter(validator=bounded("--slots", 1))]


def retention_of(days: float) -> timedelta:
    """How long closed runs are kept; raises CommandUsage."""
    if not 0 < days < MAX_RETENTION_DAYS:
        raise CommandUsage(f"--retention-days is {days:g}; it is above 0 and below {MAX_RETENTION_DAYS:,}")
    return timedelta(days=days)
