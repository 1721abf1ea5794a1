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


class Plan(NamedTuple):
    """What a query pins down; None is anything. ``id_prefix`` "" is any."""

    statuses: frozenset[str] | None
    types: frozenset[str] | None
    workflow_id: str | None
    id_prefix: str
    group: str | None
    span: Span

    def prefixes(self, counts: Counts) -> list[bytes]:
        """The index ranges of a store to look at, which has so many runs of each status and type."""
        if self.workflow_id is not None:
            return [keys.by_id(self.workflow_id)]
        if self.group is not None:
            return [keys.by_group(self.group)]
        if self.statuses is None and self.types is None:
            return [keys.STARTS]
        there = [
            (status, kind)
            for (status, kind), count in counts.items()
            if count
            and (self.statuses is None or status in self.statuses)
            and (self.types is None or kind in self.types)
        ]
        if self.types is None:
            return [keys.by_status(status) for status in sorted({status for status, _ in there})]
        return [keys.by_type(kind, status) for status, kind in there]


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
