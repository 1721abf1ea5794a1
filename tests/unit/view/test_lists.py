"""Lists, counts and groups: any query against what it says, whichever index serves it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from orchestrator.codec.query import parse, quoted
from orchestrator.errors import UsageError
from orchestrator.protocol import events as e
from orchestrator.protocol.values import Failure, FailureKind, WorkflowStatus
from orchestrator.protocol.views import MinuteCount, RunRow
from orchestrator.view import lists, planner
from tests.unit.view.shelf import Shelf

TYPES = ["Order", "Pay", "Ship"]


def refused(message: str) -> Failure:
    return Failure(kind=FailureKind.APPLICATION, type="Refused", message=message)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.close()


@pytest.fixture
def full(shelf: Shelf) -> Shelf:
    """Ninety runs of three types, some of the same id, some started at the same time."""
    rng = Random(1)
    ends: list[tuple[e.Event, ...]] = [
        (),
        (e.WorkflowCompleted(),),
        (e.WorkflowFailed(failure=refused("gateway 504")),),
        (e.WorkflowFailed(failure=refused("card 17 declined")),),
        (e.WorkflowTerminated(),),
        (e.WorkflowBlocked(reason="bug", failure=refused("gateway 9")),),
    ]
    for number in range(90):
        turns = [end] if (end := rng.choice(ends)) else []
        name, kind = f"{'ab'[number % 2]}-{number // 3}", rng.choice(TYPES)
        shelf.run(name, *turns, start_ms=1 + number // 4, kind=kind)
    return shelf


def pages(shelf: Shelf, query: str, limit: int) -> list[RunRow]:
    """All rows, page by page."""
    rows, page = [], ""
    while True:
        found = shelf.reader.list_runs(query, limit=limit, page=page)
        rows += found.rows
        page = found.next_page
        if not page:
            return rows


GROUP = "FailureGroup = '{group}'"
QUERIES = [
    "",
    "ExecutionStatus = 'Failed'",
    "ExecutionStatus IN ('Failed', 'Running') AND ExecutionStatus != 'Running'",
    "ExecutionStatus = 'Failed' AND ExecutionStatus = 'Running'",
    "WorkflowType = 'Order'",
    "WorkflowType = 'Nope'",
    "WorkflowType IN ('Order', 'Pay') AND ExecutionStatus = 'Completed'",
    "WorkflowType = 'Order' AND HistoryLength > 1",
    "ExecutionStatus = 'Failed' OR WorkflowType = 'Pay'",
    "NOT (ExecutionStatus = 'Failed' OR WorkflowType = 'Pay')",
    "StartTime >= 1005 AND StartTime < 1010",
    "StartTime = 1007 AND WorkflowType = 'Ship'",
    "StartTime > 1005 AND ExecutionStatus = 'Failed'",
    "StartTime < 0",
    "CloseTime <= 1008",
    "CloseTime > 1008",
    "CloseTime IS NULL",
    "WorkflowId = 'a-3'",
    "WorkflowId IN ('a-3', 'b-4')",
    "WorkflowId STARTS_WITH 'a-1'",
    "WorkflowId STARTS_WITH 'a-1' AND WorkflowId STARTS_WITH 'a-' AND StartTime > 1010",
    "WorkflowId STARTS_WITH 'a-' AND ExecutionStatus = 'Failed'",
    "FailureGroup IS NOT NULL",
    GROUP,
    GROUP + " AND ExecutionStatus = 'Blocked' AND StartTime > 1004",
]


@pytest.mark.parametrize("limit", [1, 7, 1_000])
@pytest.mark.parametrize("query", QUERIES)
def test_a_list_holds_what_its_query_says_newest_first_on_any_pages(
    full: Shelf, query: str, limit: int
) -> None:
    query = query.replace("{group}", full.reader.failures().groups[0].fingerprint)
    every = pages(full, "", 1_000)
    assert len(every) == 90
    assert [row.start_time_ms for row in every] == sorted((row.start_time_ms for row in every), reverse=True)
    assert pages(full, query, limit) == [row for row in every if parse(query).matches(row)]


def test_the_queries_above_match_something_and_are_served_in_all_ways(full: Shelf) -> None:
    """Otherwise the test above says little."""
    group = full.reader.failures().groups[0].fingerprint
    matched = [bool(pages(full, query.replace("{group}", group), 1_000)) for query in QUERIES]
    assert matched.count(True) >= len(QUERIES) - 3
    prefixes = Counter(
        prefix[:1]
        for query in QUERIES
        for prefix in planner.plan(parse(query)).prefixes(lambda: {(WorkflowStatus.FAILED, "Order"): 1})
    )
    assert prefixes.keys() == {b"s", b"a", b"b", b"w", b"h"}


def test_an_index_of_most_runs_is_not_used_for_what_it_does_not_serve() -> None:
    counts = {(WorkflowStatus.COMPLETED, "Order"): 70, (WorkflowStatus.FAILED, "Order"): 30}

    def prefixes(query: str) -> list[bytes]:
        return planner.plan(parse(query)).prefixes(lambda: counts)

    assert prefixes("ExecutionStatus = 'Completed' AND Attempt > 1") == [b"s"]
    assert prefixes("ExecutionStatus = 'Failed' AND Attempt > 1")[0][:1] == b"b"
    assert prefixes("ExecutionStatus = 'Completed'")[0][:1] == b"b"


def test_a_list_merges_a_bounded_number_of_ranges() -> None:
    types = [f"T{n}" for n in range(planner.MAX_RANGES + 1)]
    many = {(WorkflowStatus.FAILED, kind): 1 for kind in types}
    query = f"WorkflowType IN ({', '.join(map(quoted, types))})"
    assert planner.plan(parse(query)).prefixes(lambda: many) == [b"s"]
    assert len(planner.plan(parse("ExecutionStatus = 'Failed'")).prefixes(lambda: many)) == 1


@pytest.mark.parametrize(("few", "sorted_at_most"), [(3, 1_000), (3, 3), (7, 1_000), (1_000, 0)])
@pytest.mark.parametrize(
    "query", ["WorkflowId STARTS_WITH 'a-'", "WorkflowId STARTS_WITH 'a-' AND StartTime < 1080"]
)
def test_ids_with_a_prefix_are_the_same_whichever_way_they_are_found(
    full: Shelf, monkeypatch: pytest.MonkeyPatch, few: int, sorted_at_most: int, query: str
) -> None:
    expected = [row for row in pages(full, "", 1_000) if parse(query).matches(row)]
    monkeypatch.setattr(lists, "FEW_IDS", few)
    monkeypatch.setattr(lists, "MAX_IDS_SORTED", sorted_at_most)
    for size in (1, 10, 1_000):
        assert pages(full, query, size) == expected
    assert len(expected) > 20


def test_old_runs_with_a_prefix_are_on_the_first_page(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though more runs than a page looks at were started since, and too many begin so to be few."""
    monkeypatch.setattr(lists, "FEW_IDS", 2)
    monkeypatch.setattr(lists, "MAX_ROWS_EXAMINED", 10)
    for number in range(35):
        shelf.run(f"{'old' if number < 5 else 'new'}-{number}")
    found = shelf.reader.list_runs("WorkflowId STARTS_WITH 'old-'")
    assert [row.workflow_id for row in found.rows] == [f"old-{number}" for number in (4, 3, 2, 1, 0)]


def test_counts_by_status_and_type_come_from_counters_else_from_runs(
    full: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = pages(full, "", 1_000)
    for query in ("", "ExecutionStatus = 'Failed' OR NOT WorkflowType = 'Pay'", "StartTime > 1008"):
        expected = Counter((row.status, row.workflow_type) for row in every if parse(query).matches(row))
        found = full.reader.count_runs(query)
        assert found.complete
        assert found.runs == expected.total()
        assert {(one.status, one.workflow_type): one.runs for one in found.counts} == expected
    monkeypatch.setattr(lists, "MAX_ROWS_EXAMINED", 5)
    assert full.reader.count_runs().runs == 90
    some = full.reader.count_runs("StartTime > 0")
    assert (some.runs, some.complete) == (5, False)


def test_failures_that_are_alike_are_one_group_over_all_partitions(full: Shelf) -> None:
    every = pages(full, "", 1_000)
    found = full.reader.failures()
    assert sum(group.runs for group in found.groups) == sum(bool(row.failure_group) for row in every)
    assert [group.runs for group in found.groups] == sorted((g.runs for g in found.groups), reverse=True)
    assert {(g.workflow_type, g.message) for g in found.groups} == {
        (kind, message) for kind in TYPES for message in ("gateway <n>", "card <n> declined")
    }
    for group in found.groups:
        members = [row for row in every if row.failure_group == group.fingerprint]
        assert len(members) == group.runs
        assert (group.workflow_id, group.run_id) in {(row.workflow_id, row.run_id) for row in members}
        assert group.failure_type == "Refused"
        assert group.first_time_ms == min(row.start_time_ms for row in members) + 1
        assert group.last_time_ms == max(row.start_time_ms for row in members) + 1
    few = full.reader.failures(limit=2)
    assert (few.groups, few.more) == (found.groups[:2], len(found.groups) - 2)


def test_a_run_that_gets_on_leaves_its_group(shelf: Shelf) -> None:
    blocked = e.WorkflowBlocked(reason="bug", failure=refused("x"))
    shelf.run("a", (blocked,), (e.WorkflowUnblocked(),))
    shelf.run("b", (e.WorkflowTerminated(reason="by hand"),))
    assert shelf.reader.failures().groups == ()
    assert shelf.reader.list_runs("WorkflowId = 'b'").rows[0].last_failure == "by hand"


def test_a_token_of_another_list_is_refused(full: Shelf) -> None:
    with pytest.raises(UsageError, match="not one that a list of runs has given"):
        full.reader.list_runs(page="YWJj")


def test_what_happened_per_minute_is_summed_over_all_partitions_for_a_day(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = 24 * 3_600_000
    for number in range(9):
        shelf.run(f"old-{number}", start_ms=1, kind="Order")
        shelf.run(f"new-{number}", (e.WorkflowCompleted(),), start_ms=day, kind="Order")
    monkeypatch.setattr(shelf.reader, "_now_ms", lambda: day + 60_000)
    assert shelf.reader.minutes().minutes == (MinuteCount(time_ms=day, started=9, completed=9),)
    monkeypatch.setattr(shelf.reader, "_now_ms", lambda: day - 60_000)
    assert shelf.reader.minutes().minutes[0] == MinuteCount(time_ms=0, started=9)
