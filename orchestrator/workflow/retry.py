"""The retry policy that users write; the protocol's has milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.errors import UsageError
from orchestrator.protocol import values
from orchestrator.protocol.texts import check_int, check_name
from orchestrator.workflow.durations import Duration, to_positive_ms

MAX_BACKOFF_COEFFICIENT: Final = 1e6
"""Far above any that is meant: with it, the second wait is already as long as it may be."""

MAX_ERROR_TYPES: Final = 100
"""Names of error types in one policy: each activity carries them into its run's history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a failed activity is tried again. Names and defaults are Temporal's.

    Attributes:
        initial_interval: delay before the second attempt.
        backoff_coefficient: each further delay is this many times the one before; at least 1.
        maximum_interval: no delay is longer; None means 100 times the initial one.
        maximum_attempts: attempts in all, the first included; 0 means without limit.
        non_retryable_error_types: names of error types (or the classes) that end the activity at once.

    Raises:
        UsageError: a field has a value that makes no sense.
    """

    initial_interval: Duration = 1.0
    backoff_coefficient: float = 2.0
    maximum_interval: Duration | None = None
    maximum_attempts: int = 0
    non_retryable_error_types: Sequence[str | type[BaseException]] = ()

    def __post_init__(self) -> None:
        initial_ms = to_positive_ms(self.initial_interval, "initial_interval")
        if initial_ms is None:
            raise UsageError("initial_interval is None; leave it out for the default of one second")
        maximum_ms = to_positive_ms(self.maximum_interval, "maximum_interval")
        if maximum_ms is not None and maximum_ms < initial_ms:
            raise UsageError(
                f"maximum_interval is {self.maximum_interval!r}; it must not be shorter than "
                f"initial_interval, which is {self.initial_interval!r}"
            )
        coefficient = self.backoff_coefficient
        if not isinstance(coefficient, int | float) or not 1 <= coefficient <= MAX_BACKOFF_COEFFICIENT:
            raise UsageError(
                f"backoff_coefficient is {coefficient!r}; it must be at least 1 and at most "
                f"{MAX_BACKOFF_COEFFICIENT:.0f}"
            )
        check_int(self.maximum_attempts, "maximum_attempts (0 means no limit)", minimum=0)
        # Kept as a tuple: what is checked here must not change before an activity is started.
        object.__setattr__(self, "non_retryable_error_types", _names(self.non_retryable_error_types))

    def to_protocol(self) -> values.RetryPolicy:
        """The policy as activities carry it."""
        return values.RetryPolicy(
            initial_interval_ms=to_positive_ms(self.initial_interval, "initial_interval") or 1,
            backoff_coefficient=float(self.backoff_coefficient),
            maximum_interval_ms=to_positive_ms(self.maximum_interval, "maximum_interval"),
            maximum_attempts=self.maximum_attempts,
            non_retryable_error_types=_names(self.non_retryable_error_types),
        )


def _names(kinds: Any) -> tuple[str, ...]:
    """Error types by name."""
    if isinstance(kinds, str) or not isinstance(kinds, Iterable):
        raise UsageError(f"non_retryable_error_types is {kinds!r}; give a list of names or of error classes")
    found = tuple(kind.__name__ if isinstance(kind, type) else kind for kind in kinds)
    if len(found) > MAX_ERROR_TYPES:
        raise UsageError(
            f"non_retryable_error_types holds {len(found)} names, at most {MAX_ERROR_TYPES} are allowed"
        )
    return tuple(check_name(name, "a name in non_retryable_error_types") for name in found)
