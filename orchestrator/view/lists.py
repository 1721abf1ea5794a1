"""Lists, counts and groups of runs, over the indexes of all partitions.

Each partition has its runs in the order of starts under several keys (see ``store.keys``). A list merges the
ranges that a plan names, newest start first, and holds the whole query against each run it comes by: what
was indexed a moment ago may have moved on since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from operator import itemgetter

import msgspec

from orchestrator.codec.query import All, parse
from orchestrator.errors import UsageError
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import (
    FailureGroup,
    FailureGroups,
    MinuteCount,
    MinuteCounts,
    RunCount,
    RunCounts,
    RunPage,
    RunRow,
)
from orchestrator.store import keys
from orchestrator.store.listing import Listing, Place, Span
from orchestrator.store.minutes import MAX_MINUTES, MINUTE_MS
from orchestrator.store.rows import FailureRow, MinuteRow
from orchestrator.store.summaries import Summary
from orchestrator.view.pages import read_token, token
from orchestrator.view.planner import Plan, is_counted, plan

MAX_ROWS_EXAMINED = 20_000
"""A filter that few runs match answers with what it found among so many, and a token to go on."""

FEW_IDS = 1_000
"""Ids with a prefix are sorted by start for each page if they are as few; some 2 ms. Of more than these, a
page is likely to be among as many of the newest runs.
"""

MAX_IDS_SORTED = 50_000
"""If it is not, ids are sorted if they are as few; some 100 ms."""

Listings = Sequence[Listing]


def list_runs(listings: Listings, query: str, limit: int, page: str) -> RunPage:
    """A page of the runs that match a query. Raises UsageError: the query or the token is none."""
    wanted, after = parse(query), read_place(page)
    rows: list[RunRow] = []
    for examined, (place, summary) in enumerate(_found(listings, wanted, after), start=1):
        if summary is not None:
            rows.append(row_of(summary))
        if len(rows) == limit or examined == MAX_ROWS_EXAMINED:
            return RunPage(rows=tuple(rows), next_page=token(place))
    return RunPage(rows=tuple(rows))


def count_runs(listings: Listings, query: str) -> RunCounts:
    """How many runs match a query. Raises UsageError: the query is none."""
    wanted = parse(query)
    counts: Counter[tuple[WorkflowStatus, str]] = Counter()
    complete = True
    if is_counted(wanted):
        for listing in listings:
            for (status, kind), count in listing.counts().items():
                if wanted.matches(Summary("", "", kind, status, 0, 0)):
                    counts[status, kind] += count
    else:
        found = _found(listings, wanted, b"")
        for _, summary in islice(found, MAX_ROWS_EXAMINED):
            if summary is not None:
                counts[summary.status, summary.workflow_type] += 1
        complete = next(found, None) is None
    return RunCounts(
        runs=counts.total(),
        counts=tuple(
            RunCount(status=status, workflow_type=kind, runs=count)
            for (status, kind), count in sorted(counts.items())
        ),
        complete=complete,
    )


def minute_counts(listings: Listings, now_ms: int) -> MinuteCounts:
    """What happened in the last 24 hours, minute by minute."""
    found: dict[int, MinuteRow] = {}
    first = now_ms // MINUTE_MS - MAX_MINUTES + 1
    for listing in listings:
        for number, row in listing.minutes().items():
            if number >= first:
                total = found.setdefault(number, MinuteRow())
                total.started += row.started
                total.completed += row.completed
                total.failed += row.failed
    return MinuteCounts(
        minutes=tuple(
            MinuteCount(
                time_ms=number * MINUTE_MS, started=row.started, completed=row.completed, failed=row.failed
            )
            for number, row in sorted(found.items())
        )
    )


def failure_groups(listings: Listings, limit: int) -> FailureGroups:
    """The groups with most runs."""
    found: dict[str, FailureRow] = {}
    newest: dict[str, tuple[int, Listing]] = {}
    for listing in listings:
        for fingerprint, group in listing.groups().items():
            before = found.get(fingerprint)
            if before is None or newest[fingerprint][0] < group.last_time_ms:
                newest[fingerprint] = group.last_time_ms, listing
            found[fingerprint] = group if before is None else _together(before, group)
    by_size = sorted(found.items(), key=lambda item: (-item[1].runs, -item[1].last_time_ms, item[0]))
    groups = []
    for fingerprint, group in by_size[:limit]:
        sample = _newest(newest[fingerprint][1], keys.by_group(fingerprint))
        groups.append(
            FailureGroup(
                fingerprint=fingerprint,
                **{name: getattr(group, name) for name in group.__struct_fields__},
                workflow_id=sample.workflow_id if sample is not None else "",
                run_id=sample.run_id if sample is not None else "",
            )
        )
    return FailureGroups(groups=tuple(groups), more=len(by_size) - len(groups))


def row_of(summary: Summary) -> RunRow:
    """A run's row in a list."""
    return RunRow(
        workflow_id=summary.workflow_id,
        run_id=summary.run_id,
        workflow_type=summary.workflow_type,
        status=summary.status,
        start_time_ms=summary.start_time_ms,
        close_time_ms=summary.close_time_ms or None,
        history_events=summary.history_events,
        activity_type=summary.activity_type,
        attempt=summary.attempt,
        last_failure=summary.last_failure,
        tags=summary.tags,
        failure_group=summary.failure_group,
    )


def read_place(page: str) -> bytes:
    """The place in a token. Raises UsageError: no list of runs has given it."""
    place = read_token(page)
    if place and len(place) != keys.PLACE_BYTES:
        raise UsageError(f"the page token {page!r} is not one that a list of runs has given")
    return place


def in_order(
    listings: Listings, prefixes: Callable[[Listing], Iterable[bytes]], span: Span
) -> Iterator[Place]:
    """The runs in ranges of all partitions, newest start first."""
    ranges = [found for listing in listings for found in listing.runs(prefixes(listing), span)]
    return merge(*ranges, key=itemgetter(0))


def _found(listings: Listings, query: All, after: bytes) -> Iterator[tuple[bytes, Summary | None]]:
    """Places in the order of starts, each with its run if the query matches that."""
    wanted = plan(query, after)
    if wanted.workflow_id is not None:
        listings = [listings[partition_of(wanted.workflow_id, len(listings))]]
    found = in_order(listings, lambda listing: wanted.prefixes(listing.counts), wanted.span)
    if wanted.id_prefix and wanted.workflow_id is None:
        found = _with_prefix(found, listings, wanted)
    matches = query.matches
    for place, listing, value in found:
        summary = listing.run_at(place, value)
        yield place, summary if summary is not None and matches(summary) else None


def _with_prefix(by_start: Iterator[Place], listings: Listings, wanted: Plan) -> Iterator[Place]:
    """Runs with all among them whose ids begin as wanted, by the cheapest way to a first page."""
    span = wanted.span
    few = _sorted_ids(listings, wanted.id_prefix, span, FEW_IDS)
    if few is not None:
        yield from few
        return
    for found in islice(by_start, FEW_IDS):
        yield found
        span = msgspec.structs.replace(wanted.span, after=found[0])
    yield from _sorted_ids(listings, wanted.id_prefix, span, MAX_IDS_SORTED) or by_start


def _sorted_ids(listings: Listings, prefix: str, span: Span, most: int) -> Iterator[Place] | None:
    """The runs whose ids begin so, in the order of starts, if there are no more than ``most``; else None."""
    first, end = span.of(b"")
    ranges: list[list[Place]] = []
    left = most
    for listing in listings:
        places = list(islice(listing.places_of_ids(prefix), left + 1))
        left -= len(places)
        if left < 0:
            return None
        ranges.append([(place, listing, b"") for place in sorted(places) if first <= place < end])
    return merge(*ranges, key=itemgetter(0))


def _together(one: FailureRow, other: FailureRow) -> FailureRow:
    return msgspec.structs.replace(
        one,
        runs=one.runs + other.runs,
        first_time_ms=min(one.first_time_ms, other.first_time_ms),
        last_time_ms=max(one.last_time_ms, other.last_time_ms),
    )


def _newest(listing: Listing, prefix: bytes) -> Summary | None:
    """The newest start in a range that is still there."""
    (found,) = listing.runs([prefix], Span())
    return next((run for place, _, _ in found if (run := listing.run_at(place)) is not None), None)
