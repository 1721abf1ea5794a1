"""Lists of runs over HTTP: by query, counted, by failure, and those that do not get on."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from orchestrator.api.backend import Backend
from orchestrator.api.plain import plain
from orchestrator.api.responses import Bookmark, answer, gives
from orchestrator.codec.query import conjunction
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import (
    STUCK_ATTEMPTS,
    STUCK_WAITING_MS,
    FailureGroups,
    MinuteCounts,
    RunCounts,
    RunPage,
    StuckPage,
)
from orchestrator.workflow.durations import to_ms

MAX_ROWS = 1_000
"""Runs on one page of a list: some 200 KB, read in about 10 ms."""

Limit = Annotated[int, Query(ge=1, le=MAX_ROWS)]
Page = Annotated[str, Query(description="`next_page` of the page before")]
Q = Annotated[
    str,
    Query(description='such as `WorkflowType = "Order" AND StartTime > "2026-01-01"`; see docs/lists.md'),
]
Prefix = Annotated[str, Query(description="short for a query; must hold as well")]


def list_routes(backend: Backend) -> APIRouter:
    """The routes that show many runs."""
    router = APIRouter(tags=["lists"])

    @router.get("/workflows", responses=gives(RunPage, "Newest start first."))
    async def list_workflows(  # noqa: PLR0917  # by name, in the URL
        q: Q = "",
        status: WorkflowStatus | None = None,
        type: Prefix = "",
        id_prefix: Prefix = "",
        limit: Limit = 100,
        page: Page = "",
        bookmark: Bookmark = "",
    ) -> Response:
        """Runs that match. With `next_page` "" there are no others; a page may be short and not the last."""
        query = conjunction(q, status=status, workflow_type=type, id_prefix=id_prefix)
        return answer(plain(await backend.reads(bookmark).list_runs(query, limit=limit, page=page)))

    @router.get("/workflow-counts", responses=gives(RunCounts, "By status and type."))
    async def count_workflows(q: Q = "", bookmark: Bookmark = "") -> Response:
        """How many runs match. Counters answer at once if the query asks for status and type alone; else
        20,000 runs are looked at, and `complete` says whether those were all.
        """
        return answer(plain(await backend.reads(bookmark).count_runs(q)))

    @router.get("/workflow-minutes", responses=gives(MinuteCounts, "Oldest first."))
    async def workflow_minutes(bookmark: Bookmark = "") -> Response:
        """How many runs started, completed, or closed in another way, per minute of the last 24 hours."""
        return answer(await backend.reads(bookmark).minutes())

    @router.get("/failures", responses=gives(FailureGroups, "Those of most runs first."))
    async def failures(limit: Limit = 100, bookmark: Bookmark = "") -> Response:
        """Runs that failed, or fail now, grouped by what their failures have in common."""
        return answer(plain(await backend.reads(bookmark).failures(limit=limit)))

    @router.get(
        "/stuck", responses=gives(StuckPage, "Blocked runs first, then activities, oldest run first.")
    )
    async def stuck(
        attempts: Annotated[int, Query(ge=1, description="tried so often")] = STUCK_ATTEMPTS,
        waiting_s: Annotated[float, Query(ge=0, description="without a worker for so long")] = (
            STUCK_WAITING_MS / 1_000
        ),
        limit: Limit = 100,
        page: Page = "",
        bookmark: Bookmark = "",
    ) -> Response:
        """Blocked runs, and activities that are tried again and again, wait long, or have no workers."""
        waiting_ms = to_ms(waiting_s, "waiting_s")
        reads = backend.reads(bookmark)
        return answer(
            plain(await reads.stuck(attempts=attempts, waiting_ms=waiting_ms, limit=limit, page=page))
        )

    return router
