"""The language of lists: what it says, what it refuses and how, and that it says what was meant."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.codec.query import (
    EVERYTHING,
    FIELDS,
    MAX_DEPTH,
    MAX_QUERY_CHARS,
    All,
    Compare,
    Either,
    Kind,
    Node,
    Not,
    comparisons,
    conjunction,
    parse,
    quoted,
)
from orchestrator.errors import UsageError
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import RunRow

NOON_MS = 1_767_268_800_000
"""2026-01-01T12:00:00Z"""

ORDER = RunRow(
    workflow_id="order-17",
    run_id="r1",
    workflow_type="Order",
    status=WorkflowStatus.FAILED,
    start_time_ms=NOON_MS,
    close_time_ms=NOON_MS + 5_000,
    history_events=12,
    activity_type="charge",
    attempt=3,
    failure_group="f3a9c1",
    tags=("compensation-deferred", "vip"),
)
OPEN = RunRow(
    workflow_id="m-1", run_id="r2", workflow_type="M", status=WorkflowStatus.RUNNING, start_time_ms=1_000
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        'WorkflowType = "Order" AND ExecutionStatus = "Failed" AND StartTime > "2026-01-01T00:00:00Z"',
        "WorkflowId STARTS_WITH 'order-' and WorkflowType != 'X'",
        "`ExecutionStatus` = 'failed'",
        "ExecutionStatus IN ('Failed', 'TimedOut')",
        "ExecutionStatus not in ('Running')",
        f"StartTime = {NOON_MS}",
        "StartTime = '2026-01-01T13:00:00+01:00'",
        "StartTime BETWEEN '2026-01-01' AND '2026-01-02'",
        "StartTime NOT BETWEEN 0 AND 1000",
        "CloseTime IS NOT NULL AND CloseTime > '2026-01-01T12:00:04.999Z'",
        "HistoryLength >= 12 AND HistoryLength <= 12 AND NOT HistoryLength <> 12",
        "Attempt > 2 AND ActivityType = 'charge'",
        "FailureGroup = 'f3a9c1'",
        "Tags = 'vip'",
        "Tags STARTS_WITH 'compensation-'",
        "WorkflowId = 'x' OR (WorkflowId = 'order-17' AND NOT (WorkflowType = 'X' OR RunId = 'r2'))",
        "WorkflowId = 'x' AND WorkflowId = 'y' OR WorkflowId = 'order-17'",  # AND binds closer
        "WorkflowId NOT STARTS_WITH 'm-'",
    ],
)
def test_what_the_order_matches_and_the_open_run_does_not(text: str) -> None:
    found = parse(text)
    assert found.matches(ORDER)
    assert found.matches(OPEN) is (found is EVERYTHING)


@pytest.mark.parametrize(
    "text",
    [
        "CloseTime > 0",
        "CloseTime != 0",
        "FailureGroup != 'x'",
        "Tags = 'vip'",
        "ActivityType IN ('a', 'b')",
    ],
)
def test_what_is_not_there_passes_no_test_but_that_for_null(text: str) -> None:
    assert not parse(text).matches(OPEN)
    assert parse(f"NOT {text}").matches(OPEN)
    assert parse(f"{text.split(maxsplit=1)[0]} IS NULL").matches(OPEN)
    assert parse("Attempt = 0").matches(OPEN), "a number is always there"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("WorkflowTyp = 'x'", "has WorkflowTyp at column 1, where the field WorkflowType is expected"),
        ("workflowtype = 'x'", "where the field WorkflowType is expected"),
        ("Zzz = 1", "has Zzz at column 1, where a field (WorkflowId, RunId,"),
        ("WorkflowType 'x'", "has 'x' at column 14, where one of = != >"),
        ("WorkflowType NOT = 'x'", "has = at column 18, where one of STARTS_WITH IN BETWEEN is expected"),
        ("WorkflowType = Order", 'has Order at column 16, where a text in quotes, such as "order-17" is'),
        ("WorkflowType = 'Order", '"\'Order" at column 16, which is a text without its closing quote'),
        ("WorkflowType = 'x' &", "has '&' at column 20, which is no word, text or sign"),
        ("WorkflowType = 'x' WorkflowId = 'y'", "has WorkflowId at column 20, where AND, OR or the end is"),
        ("WorkflowType =", "has its end at column 15, where a text in quotes"),
        ("(WorkflowType = 'x'", "has its end at column 20, where ) is expected"),
        ("ExecutionStatus = 'Ended'", "has 'Ended' at column 19, where one of Running, Blocked, Completed"),
        ("ExecutionStatus > 'Failed'", "where one of = != IN or IS [NOT] NULL is expected"),
        ("StartTime > 'yesterday'", "has 'yesterday' at column 13, where a time such as"),
        ("StartTime STARTS_WITH '2026'", "has STARTS_WITH at column 11, where one of = != > >= < <= IN"),
        ("HistoryLength > 1.5", "has '1.5' at column 17"),
        ("WorkflowId IN ()", "has ) at column 16"),
        ("AND", "has AND at column 1, where a field, NOT or ( is expected"),
        ("x" * (MAX_QUERY_CHARS + 1), "has 10001 characters; at most 10,000"),
        ("(" * 100, f"more than {MAX_DEPTH} parentheses"),
        ("NOT " * 100, f"more than {MAX_DEPTH} parentheses"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in str(caught.value)


@given(st.text(st.sampled_from("AND OR NOT IN()=<>!\"'\\,WorkflowId StartTime 1990-x`&\n\0"), max_size=40))
@example('"\\')
@example("`")
def test_any_text_is_a_query_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        parse(text).matches(ORDER)


# --- what was written is what was meant ---

_TEXTS = st.text(max_size=5)
_VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: _TEXTS,
    Kind.STATUS: st.sampled_from(WorkflowStatus),
    Kind.TIME: st.integers(-(10**12), 10**13),
    Kind.NUMBER: st.integers(-5, 5),
}


@st.composite
def _compares(draw: st.DrawFn) -> Compare:
    name = draw(st.sampled_from(sorted(FIELDS)))
    kind = FIELDS[name].kind
    signs = ["=", "!=", "IN", "IS NULL"]
    signs += ["<", ">=", "BETWEEN"] if kind is not Kind.STATUS else []
    signs += ["STARTS_WITH"] if kind is Kind.TEXT else []
    sign = draw(st.sampled_from(signs))
    counts = {"IS NULL": (0, 0), "IN": (1, 3), "BETWEEN": (2, 2)}.get(sign, (1, 1))
    return Compare(name, sign, tuple(draw(st.lists(_VALUES[kind], min_size=counts[0], max_size=counts[1]))))


_NODES: st.SearchStrategy[Node] = st.recursive(
    _compares(),
    lambda nodes: st.one_of(
        st.builds(Not, nodes),
        st.builds(lambda parts: All(tuple(parts)), st.lists(nodes, min_size=2, max_size=3)),
        st.builds(lambda parts: Either(tuple(parts)), st.lists(nodes, min_size=2, max_size=3)),
    ),
    max_leaves=8,
)
_ROWS = st.builds(
    RunRow,
    workflow_id=_TEXTS,
    run_id=_TEXTS,
    workflow_type=_TEXTS,
    status=_VALUES[Kind.STATUS],
    start_time_ms=_VALUES[Kind.TIME],
    close_time_ms=st.none() | _VALUES[Kind.TIME],
    history_events=_VALUES[Kind.NUMBER],
    attempt=_VALUES[Kind.NUMBER],
    tags=st.lists(_TEXTS.filter(bool), max_size=2).map(tuple),
)


def written(node: Node) -> str:
    """A tree as somebody would type it."""
    if isinstance(node, Not):
        return f"NOT ({written(node.part)})"
    if isinstance(node, All | Either):
        word = " AND " if isinstance(node, All) else " OR "
        return word.join(f"({written(part)})" for part in node.parts)
    values = [quoted(value) if isinstance(value, str) else str(value) for value in node.values]
    forms = {
        "IN": lambda: f"{node.field} IN ({', '.join(values)})",
        "BETWEEN": lambda: f"{node.field} BETWEEN {values[0]} AND {values[1]}",
        "IS NULL": lambda: f"{node.field} IS NULL",
    }
    return forms.get(node.operator, lambda: f"{node.field} {node.operator} {values[0]}")()


@given(_NODES, _ROWS)
def test_a_tree_that_is_written_and_read_matches_as_it_did(node: Node, row: RunRow) -> None:
    found = parse(written(node))
    assert found.matches(row) is node.matches(row)
    assert list(comparisons(found)) == list(comparisons(node))


@given(_TEXTS, _TEXTS, st.none() | st.sampled_from(WorkflowStatus), _ROWS)
def test_options_say_the_same_as_a_query(
    kind: str, prefix: str, status: WorkflowStatus | None, row: RunRow
) -> None:
    text = conjunction("Attempt > 0 OR Attempt < 0", status=status, workflow_type=kind, id_prefix=prefix)
    assert parse(text).matches(row) is (
        row.attempt != 0
        and (status is None or row.status is status)
        and (not kind or row.workflow_type == kind)
        and row.workflow_id.startswith(prefix)
    )
    assert conjunction() == ""
    assert conjunction("Attempt > 0") == "Attempt > 0"
