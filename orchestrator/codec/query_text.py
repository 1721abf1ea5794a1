"""Queries written and edited: what a filter that is clicked makes of the text that somebody typed."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.codec.query import FIELDS, All, Compare, Either, Kind, Node, Not, parse, quoted

MAX_TIME_MS = 253_402_300_799_999
"""The last moment of the year 9999: later ones have no text."""


def written(node: Node) -> str:
    """The text of a query; :func:`parse` makes an equal tree of it. "" for everything."""
    if isinstance(node, All):
        return " AND ".join(map(_within, node.parts))
    if isinstance(node, Either):
        return " OR ".join(map(_within, node.parts))
    if isinstance(node, Not):
        return f"NOT {_within(node.part)}"
    return _test(node)


def parts(query: str) -> tuple[str, ...]:
    """The tests that all must hold, each as text. Raises QueryError: it is no query."""
    return tuple(map(_within, parse(query).parts))


def without(query: str, part: str) -> str:
    """A query without one of its parts. Raises QueryError: it is no query."""
    return " AND ".join(one for one in parts(query) if one != part)


def narrowed(query: str, field: str, value: str | int, operator: str = "=") -> str:
    """A query with one more test, which takes the place of those of the same field that stood beside it.

    Tests within OR and NOT stay as they are, as do those of other operators that a value may be between.

    Raises:
        QueryError: it is no query.
    """
    test = Compare(field, operator, (value,))
    return written(All((*_others(query, field, operator), test)))


def widened(query: str, field: str, operator: str = "=") -> str:
    """A query without the tests that :func:`narrowed` would replace. Raises QueryError: it is no query."""
    return written(All(_others(query, field, operator)))


def _others(query: str, field: str, operator: str) -> tuple[Node, ...]:
    rivals = _RIVALS[operator]
    return tuple(
        part
        for part in parse(query).parts
        if not (isinstance(part, Compare) and part.field == field and part.operator in rivals)
    )


_RIVALS = {
    "=": frozenset({"=", "IN", "STARTS_WITH"}),
    "STARTS_WITH": frozenset({"=", "IN", "STARTS_WITH"}),
    ">=": frozenset({"=", ">", ">=", "BETWEEN"}),
}
"""Tests that a new one of the same field would contradict or repeat."""


def _within(node: Node) -> str:
    """A part of a larger query."""
    text = written(node)
    return f"({text})" if isinstance(node, All | Either) else text


def _test(test: Compare) -> str:
    values = [_value(test.field, value) for value in test.values]
    between = " AND " if test.operator == "BETWEEN" else ", "
    told = f"({between.join(values)})" if test.operator == "IN" else between.join(values)
    return f"{test.field} {test.operator} {told}".rstrip()


def _value(field: str, value: str | int) -> str:
    if isinstance(value, str):
        return quoted(value)
    if FIELDS[field].kind is Kind.TIME:
        return quoted(_time(value)) if 0 <= value <= MAX_TIME_MS else str(value)
    return str(value)


def _time(time_ms: int) -> str:
    found = datetime.fromtimestamp(time_ms // 1_000, UTC)
    return f"{found:%Y-%m-%dT%H:%M:%S}{f'.{time_ms % 1_000:03}' if time_ms % 1_000 else ''}Z"
