"""``/workflows``: the runs that a query finds. All that the list shows is in its address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from msgspec.structs import replace

from orchestrator.api.backend import Backend
from orchestrator.api.pages.live import Live
from orchestrator.api.pages.parts import Parts
from orchestrator.api.pages.rendering import link_of, now_ms, page_router, render
from orchestrator.api.responses import INVALID
from orchestrator.client.reads import AsyncReader
from orchestrator.codec import query_text
from orchestrator.codec.query import FIELDS, parse, quoted
from orchestrator.errors import QueryError
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import RunCounts, RunPage, RunRow
from orchestrator.view.lists import MAX_ROWS_EXAMINED

PAGE_ROWS = 100
"""Runs on one page: more than anybody reads, some 60 KB."""

MAX_NEW = 10
"""Rows that may come on top at a time: with more, what somebody reads is gone before it is read."""

MAX_TYPES = 12
"""Types with a chip of their own: those of most runs."""

_AGES = (("1 h", 3_600_000), ("24 h", 86_400_000), ("7 d", 7 * 86_400_000))


class Chip(NamedTuple):
    """A filter as a link: ``query`` is what the list is asked with when it is clicked."""

    words: str
    query: str
    on: bool = False
    runs: int | None = None


class Filters(NamedTuple):
    """The filters beside a query: what it tests now, and what it could.

    Without ``complete``, counts are of the runs that were looked at. ``more_types`` have no chip.
    """

    statuses: tuple[Chip, ...]
    types: tuple[Chip, ...]
    ages: tuple[Chip, ...]
    tests: tuple[Chip, ...]
    complete: bool
    more_types: int = 0


def runs_pages(backend: Backend) -> APIRouter:
    """The list of runs."""
    router = page_router()
    reader = backend.reader

    @router.get("/workflows")
    async def workflows(
        request: Request,
        q: Annotated[str, Query()] = "",
        page: Annotated[str, Query()] = "",
        find: Annotated[str, Query()] = "",
    ) -> Response:
        if find.strip():
            query = f"WorkflowId STARTS_WITH {quoted(find.strip())}"
            return RedirectResponse(link_of(request, "/workflows", q=query), 303)
        try:
            parse(q)
        except QueryError as error:
            asked = {"q": q, "page": page, "error": error, "fields": FIELDS}
            return render(request, "runs.html", status=INVALID, **asked)
        return render(request, "runs.html", **await _look(reader, q, page))

    @router.get("/live/workflows")
    async def live(request: Request, q: Annotated[str, Query()] = "") -> Response:
        parse(q)
        blocks = {"filters": "filters", "news": "news", "list": "list"}
        return Live(backend.watch, None, Parts(request, "runs.html", blocks, _Newest(reader, q).look).next)

    return router


async def _look(reader: AsyncReader, q: str, page: str = "") -> dict[str, Any]:
    """What the list shows."""
    found, statuses, types = await asyncio.gather(
        reader.list_runs(q, limit=PAGE_ROWS, page=page),
        reader.count_runs(query_text.widened(q, "ExecutionStatus")),
        reader.count_runs(query_text.widened(q, "WorkflowType")),
    )
    return {
        "q": q,
        "page": page,
        "error": None,
        "fields": FIELDS,
        "found": found,
        "new": 0,
        "filters": filters_of(q, statuses, types, now_ms()),
        "examined": MAX_ROWS_EXAMINED,
        "page_rows": PAGE_ROWS,
    }


class _Newest:
    """The first page of a list, for as long as people can follow it; then its rows, and how many are new."""

    def __init__(self, reader: AsyncReader, q: str) -> None:
        self._reader, self._q = reader, q
        self._shown: RunPage | None = None

    async def look(self) -> dict[str, Any]:
        """What the list shows now."""
        context = await _look(self._reader, self._q)
        new = newer(self._shown, context["found"])
        if self._shown is None or new <= MAX_NEW:
            self._shown = context["found"]
            return context
        self._shown = await _renewed(self._reader, self._shown, context["found"])
        return context | {"found": self._shown, "new": new}


async def _renewed(reader: AsyncReader, shown: RunPage, found: RunPage) -> RunPage:
    """The rows that are shown, where they are, as they stand now; ``found`` has some of them already.

    Closed runs stay as they are. Others are asked for by their place in the order of starts, for they may
    have left what the list is about.
    """
    known = {row.run_id: row for row in found.rows}

    async def renewed(row: RunRow) -> RunRow:
        if row.run_id in known or not row.status.is_open:
            return known.get(row.run_id, row)
        place = f"WorkflowId = {quoted(row.workflow_id)} AND StartTime = {row.start_time_ms}"
        page = await reader.list_runs(f"{place} AND RunId = {quoted(row.run_id)}", limit=1)
        return page.rows[0] if page.rows else row

    return replace(shown, rows=tuple(await asyncio.gather(*map(renewed, shown.rows))))


def newer(shown: RunPage | None, found: RunPage) -> int:
    """How many rows of a first page are new on top of the one that is shown."""
    if shown is None or not shown.rows:
        return 0
    known, newest_ms = {row.run_id for row in shown.rows}, shown.rows[0].start_time_ms
    return sum(row.start_time_ms >= newest_ms and row.run_id not in known for row in found.rows)


def filters_of(q: str, by_status: RunCounts, by_type: RunCounts, now_ms: int) -> Filters:
    """The filters beside a query that is one. Counts are of what the other filters leave."""
    tests = query_text.parts(q)

    def chip(field: str, value: str, runs: int) -> Chip:
        on = f"{field} = {quoted(value)}" in tests
        query = query_text.widened(q, field) if on else query_text.narrowed(q, field, value)
        return Chip(value, query, on, runs)

    statuses = _totals((one.status.value, one.runs) for one in by_status.counts)
    types = _totals((one.workflow_type, one.runs) for one in by_type.counts)
    most = sorted(types, key=lambda kind: (-types[kind], kind))[:MAX_TYPES]
    return Filters(
        statuses=tuple(
            chip("ExecutionStatus", status.value, statuses.get(status.value, 0)) for status in WorkflowStatus
        ),
        types=tuple(chip("WorkflowType", kind, types[kind]) for kind in sorted(most)),
        ages=tuple(
            Chip(words, query_text.narrowed(q, "StartTime", (now_ms - age_ms) // 60_000 * 60_000, ">="))
            for words, age_ms in _AGES
        ),
        tests=tuple(Chip(test, query_text.without(q, test)) for test in tests),
        complete=by_status.complete and by_type.complete,
        more_types=len(types) - len(most),
    )


def _totals(found: Iterable[tuple[str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for name, runs in found:
        totals[name] = totals.get(name, 0) + runs
    return totals
