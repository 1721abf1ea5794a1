"""Queries as text again: what is written reads as it was, and filters change what they should."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.codec.query import _ALLOWED, FIELDS, OPERATORS, All, Compare, Either, Kind, Node, Not, parse
from orchestrator.codec.query_text import MAX_TIME_MS, narrowed, parts, widened, without, written
from orchestrator.errors import QueryError
from orchestrator.protocol.values import WorkflowStatus

VALUES: dict[Kind, st.SearchStrategy[str | int]] = {
    Kind.TEXT: st.text(max_size=8),
    Kind.STATUS: st.sampled_from(WorkflowStatus),
    Kind.TIME: st.integers(-5, MAX_TIME_MS + 5),
    Kind.NUMBER: st.integers(),
}


@st.composite
def comparisons(draw: st.DrawFn) -> Compare:
    name = draw(st.sampled_from(sorted(FIELDS)))
    kind = FIELDS[name].kind
    sign = draw(st.sampled_from([one for one in OPERATORS if one in _ALLOWED[kind]]))
    least, most = {"IN": (1, 3), "BETWEEN": (2, 2), "IS NULL": (0, 0)}.get(sign, (1, 1))
    return Compare(name, sign, tuple(draw(st.lists(VALUES[kind], min_size=least, max_size=most))))


def nodes() -> st.SearchStrategy[Node]:
    def larger(part: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
        either = st.lists(part, min_size=2, max_size=3).map(lambda found: Either(tuple(found)))
        return (
            either
            | part.map(Not)
            | st.lists(part, min_size=2, max_size=3).map(lambda found: All(tuple(found)))
        )

    return st.recursive(comparisons(), larger, max_leaves=6)


@given(nodes())
def test_what_is_written_is_read_as_the_same(node: Node) -> None:
    tree = parse(written(node))  # as the parser builds trees: flat where it can be
    assert parse(written(tree)) == tree
    if isinstance(node, Compare):
        assert tree == All((node,))


@given(nodes())
def test_a_query_is_the_sum_of_its_parts(node: Node) -> None:
    query = written(node)
    found = parts(query)
    assert parse(" AND ".join(found)) == parse(query)
    assert len(parts(without(query, found[0]))) == len([one for one in found if one != found[0]])


@pytest.mark.parametrize(
    ("query", "field", "value", "text"),
    [
        ("", "WorkflowType", "Order", 'WorkflowType = "Order"'),
        ("WorkflowType starts_with 'Ord'", "WorkflowType", "x", 'WorkflowType = "x"'),
        ("Attempt > 3", "WorkflowType", 'a"b', 'Attempt > 3 AND WorkflowType = "a\\"b"'),
        (
            "WorkflowType IN ('a', 'b') AND Attempt=1",
            "WorkflowType",
            "c",
            'Attempt = 1 AND WorkflowType = "c"',
        ),
        (
            "WorkflowType = 'a' OR WorkflowType = 'b'",
            "WorkflowType",
            "c",
            '(WorkflowType = "a" OR WorkflowType = "b") AND WorkflowType = "c"',
        ),
        ("NOT WorkflowType = 'a'", "WorkflowType", "c", 'NOT WorkflowType = "a" AND WorkflowType = "c"'),
        ("WorkflowType != 'a'", "WorkflowType", "c", 'WorkflowType != "a" AND WorkflowType = "c"'),
    ],
)
def test_a_filter_takes_the_place_of_its_rivals(query: str, field: str, value: str, text: str) -> None:
    assert narrowed(query, field, value) == text
    assert narrowed(text, field, value) == text


def test_a_beginning_in_time_keeps_the_end() -> None:
    query = "StartTime > '2026-01-01' AND StartTime < 1800000000000"
    assert narrowed(query, "StartTime", 1_790_000_000_500, ">=") == (
        'StartTime < "2027-01-15T08:00:00Z" AND StartTime >= "2026-09-21T14:13:20.500Z"'
    )


def test_widening_undoes_narrowing() -> None:
    assert widened(narrowed("Attempt > 3", "WorkflowId", "x", "STARTS_WITH"), "WorkflowId") == "Attempt > 3"


def test_no_query_is_no_query() -> None:
    with pytest.raises(QueryError) as caught:
        narrowed("Attempt > 3 AND", "WorkflowId", "x")
    assert caught.value.column == 16
