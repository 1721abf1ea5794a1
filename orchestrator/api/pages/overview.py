"""``/``: how many runs there are, what fails, what is stuck, what waits, and who works."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response

from orchestrator.api.backend import Backend
from orchestrator.api.pages.live import Live
from orchestrator.api.pages.parts import BEATS_S, Parts
from orchestrator.api.pages.rendering import page_router, render
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import MinuteCount, MinuteCounts, RunCounts
from orchestrator.view.queues import ALIVE_MS
from orchestrator.view.reader import Overview

TOP_ROWS = 5
"""Of each list on the overview: the rest is one click away."""

MAX_TYPES = 20
"""Types in the table of counts, those of most runs: the list of runs counts the others."""

HOUR_MS = 3_600_000
"""What a row of the table counts together: a day of minutes is too long to be read."""

BLOCKS = {"counts": "counts", "hours": "hours", "live": "live"}
"""What changes, in the elements of these ids. The chart between them draws itself."""


class TypeCounts(NamedTuple):
    """The runs of a type, by status."""

    workflow_type: str
    runs: dict[WorkflowStatus, int]


def overview_pages(backend: Backend, overview: Overview) -> APIRouter:
    """The overview."""
    router = page_router()

    @router.get("/")
    async def home(request: Request) -> Response:
        return render(request, "overview.html", **await look(backend, overview))

    @router.get("/live/overview")
    async def live(request: Request) -> Response:
        parts = Parts(request, "overview.html", BLOCKS, lambda: look(backend, overview))
        return Live(backend.watch, None, parts.next, refresh_s=BEATS_S)

    return router


async def look(backend: Backend, overview: Overview) -> dict[str, Any]:
    """What the overview shows."""
    reader = backend.reader
    counts, minutes, failures, stuck, queues, status = await asyncio.gather(
        reader.count_runs(),
        reader.minutes(),
        reader.failures(limit=TOP_ROWS),
        reader.stuck(limit=TOP_ROWS),
        asyncio.to_thread(overview.queues),
        asyncio.to_thread(overview.status),
    )
    types = by_type(counts)
    return {
        "runs": counts.runs,
        "statuses": by_status(counts),
        "types": types[:MAX_TYPES],
        "more_types": len(types[MAX_TYPES:]),
        "hours": by_hour(minutes),
        "failures": failures,
        "stuck": stuck,
        "queues": [queue for queue in queues.queues if queue.waiting],
        "view": status,
        "lag_records": sum(one.lag_records for one in status.partitions),
        "alive_ms": ALIVE_MS,
    }


def by_status(counts: RunCounts) -> dict[WorkflowStatus, int]:
    """How many runs have each status; all statuses are named."""
    found = dict.fromkeys(WorkflowStatus, 0)
    for one in counts.counts:
        found[one.status] += one.runs
    return found


def by_hour(found: MinuteCounts) -> list[MinuteCount]:
    """What happened per hour, newest first: the chart's numbers for those who do not see it."""
    hours: dict[int, Counter[str]] = {}
    for one in found.minutes:
        hour = hours.setdefault(one.time_ms // HOUR_MS, Counter())
        hour.update(started=one.started, completed=one.completed, failed=one.failed)
    return [MinuteCount(time_ms=hour * HOUR_MS, **hours[hour]) for hour in sorted(hours, reverse=True)]


def by_type(counts: RunCounts) -> list[TypeCounts]:
    """How many runs of each type have each status; those of most runs first."""
    found: dict[str, dict[WorkflowStatus, int]] = {}
    for one in counts.counts:
        found.setdefault(one.workflow_type, dict.fromkeys(WorkflowStatus, 0))[one.status] += one.runs
    most = sorted(found, key=lambda kind: (-sum(found[kind].values()), kind))
    return [TypeCounts(kind, found[kind]) for kind in most]
