"""Which index serves a query: the narrowest range of places that holds all that it matches. No I/O.

Only tests that must all hold can narrow a list; whatever else a query says is held against each run found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from orchestrator.codec.query import All, Compare, comparisons
from orchestrator.engine.state import MAX_TIME_MS
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.store import keys
from orchestrator.store.listing import Span

Counts = Mapping[tuple[WorkflowStatus, str], int]

_COUNTED = frozenset({"ExecutionStatus", "WorkflowType"})
_SERVED = _COUNTED | {"StartTime"}

MOST_SHARE = 0.3
"""An index with a larger share of all runs is of no use for what it does not serve: to read all runs in order
is three times as fast for each as to look up those of an index."""

MAX_RANGES = 64
"""Of a store, to be merged for one list: for 16 stores, so many take 10 ms to open."""


class Plan(NamedTuple):
    """What a query pins down; None is anything. ``id_prefix`` "" is any."""

    statuses: frozenset[str] | None
    types: frozenset[str] | None
    workflow_id: str | None
    id_prefix: str
    group: str | None
    span: Span
    exhausted: bool
    """Whether that is all that the query says."""

    def prefixes(self, count: Callable[[], Counts]) -> list[bytes]:
        """The index ranges of a store to look at; ``count`` says how many runs it has by status and type."""
        if self.workflow_id is not None:
            return [keys.by_id(self.workflow_id)]
        if self.group is not None:
            return [keys.by_group(self.group)]
        return [keys.STARTS] if self.statuses is None and self.types is None else self._counted(count)

    def _counted(self, count: Callable[[], Counts]) -> list[bytes]:
        """Those of statuses and types, or all runs where to look these up would take longer."""
        counts = count()
        there = [
            (status, kind)
            for status, kind in counts
            if (self.statuses is None or status in self.statuses)
            and (self.types is None or kind in self.types)
        ]
        large = sum(counts[one] for one in there) > sum(counts.values()) * MOST_SHARE
        if self.types is None:
            prefixes = [keys.by_status(status) for status in {status for status, _ in there}]
        else:
            prefixes = [keys.by_type(kind, status) for status, kind in there]
        too_many = len(prefixes) > MAX_RANGES or (large and not self.exhausted)
        return [keys.STARTS] if too_many else prefixes


def plan(query: All, after: bytes = b"") -> Plan:
    """How to find what a query matches, behind a place."""
    tests = [part for part in query.parts if isinstance(part, Compare)]
    ids = _values(tests, "WorkflowId")
    groups = _values(tests, "FailureGroup")
    prefixes = [
        str(test.values[0]) for test in tests if (test.field, test.operator) == ("WorkflowId", "STARTS_WITH")
    ]
    oldest_ms, newest_ms = _span(tests)
    return Plan(
        statuses=_values(tests, "ExecutionStatus"),
        types=_values(tests, "WorkflowType"),
        workflow_id=next(iter(ids)) if ids is not None and len(ids) == 1 else None,
        id_prefix=max(prefixes, key=len, default=""),
        group=next(iter(groups)) if groups is not None and len(groups) == 1 else None,
        span=Span(newest_ms=newest_ms, oldest_ms=oldest_ms, after=after),
        exhausted=all(isinstance(part, Compare) and part.field in _SERVED for part in query.parts),
    )


def is_counted(query: All) -> bool:
    """Whether counters by status and type are enough to say how many runs a query matches."""
    return all(test.field in _COUNTED for test in comparisons(query))


def _values(tests: list[Compare], field: str) -> frozenset[Any] | None:
    """The values that a field may have at all; None if it may have any."""
    found: frozenset[Any] | None = None
    for test in tests:
        if test.field == field and test.operator in ("=", "IN"):
            values = frozenset(test.values)
            found = values if found is None else found & values
    return found


_BOUNDS: dict[str, Callable[[tuple[Any, ...]], tuple[int, int]]] = {
    "=": lambda values: (values[0], values[0]),
    "IN": lambda values: (min(values), max(values)),
    "BETWEEN": lambda values: (values[0], values[1]),
    ">": lambda values: (values[0] + 1, MAX_TIME_MS),
    ">=": lambda values: (values[0], MAX_TIME_MS),
    "<": lambda values: (0, values[0] - 1),
    "<=": lambda values: (0, values[0]),
}


def _span(tests: list[Compare]) -> tuple[int, int]:
    """The earliest and the latest start; whoever closed by a time has started by then too."""
    oldest_ms, newest_ms = 0, MAX_TIME_MS
    for test in tests:
        bounds = _BOUNDS.get(test.operator)
        if bounds is None or test.field not in ("StartTime", "CloseTime"):
            continue
        low, high = bounds(test.values)
        newest_ms = min(newest_ms, max(high, 0))
        if test.field == "StartTime":
            oldest_ms = max(oldest_ms, min(low, MAX_TIME_MS))
    return oldest_ms, newest_ms
