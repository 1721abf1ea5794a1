"""The retry policy that users write; the protocol's has milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from orchestrator.errors import UsageError
from orchestrator.protocol import values
from orchestrator.workflow.durations import Duration, to_positive_ms


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
        if not isfinite(self.backoff_coefficient) or self.backoff_coefficient < 1:
            raise UsageError(f"backoff_coefficient is {self.backoff_coefficient!r}; it must be at least 1")
        if isinstance(self.maximum_attempts, bool) or not isinstance(self.maximum_attempts, int):
            raise UsageError(f"maximum_attempts is {self.maximum_attempts!r}; give a whole number")
        if self.maximum_attempts < 0:
            raise UsageError(
                f"maximum_attempts is {self.maximum_attempts}; give 0 for no limit, or at least 1"
            )
        if isinstance(self.non_retryable_error_types, str):
            raise UsageError(
                f"non_retryable_error_types is the string {self.non_retryable_error_types!r}; "
                "give a list of names"
            )

    def to_protocol(self) -> values.RetryPolicy:
        """The policy as activities carry it."""
        return values.RetryPolicy(
            initial_interval_ms=to_positive_ms(self.initial_interval, "initial_interval") or 1,
            backoff_coefficient=float(self.backoff_coefficient),
            maximum_interval_ms=to_positive_ms(self.maximum_interval, "maximum_interval"),
            maximum_attempts=self.maximum_attempts,
            non_retryable_error_types=tuple(
                kind if isinstance(kind, str) else kind.__name__ for kind in self.non_retryable_error_types
            ),
        )
