"""``/failures`` and ``/stuck``: what somebody should look into."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from orchestrator.api.backend import Backend
from orchestrator.api.pages.rendering import page_router, render
from orchestrator.protocol.views import STUCK_ATTEMPTS, STUCK_WAITING_MS
from orchestrator.workflow.durations import to_ms

PAGE_GROUPS = 200
"""Failure groups on the page, those of most runs: nobody looks into more kinds of failures at a time."""

PAGE_ROWS = 100
"""Rows on one page of what is stuck."""


def failures_pages(backend: Backend) -> APIRouter:
    """Failure groups, and what is stuck."""
    router = page_router()
    reader = backend.reader

    @router.get("/failures")
    async def failures(request: Request) -> Response:
        found = await reader.failures(limit=PAGE_GROUPS)
        return render(request, "failures.html", failures=found)

    @router.get("/stuck")
    async def stuck(
        request: Request,
        attempts: Annotated[int, Query(ge=1)] = STUCK_ATTEMPTS,
        waiting_s: Annotated[float, Query(ge=0)] = STUCK_WAITING_MS / 1_000,
        page: Annotated[str, Query()] = "",
    ) -> Response:
        waiting_ms = to_ms(waiting_s, "waiting_s")
        found = await reader.stuck(attempts=attempts, waiting_ms=waiting_ms, limit=PAGE_ROWS, page=page)
        return render(request, "stuck.html", stuck=found, attempts=attempts, waiting_s=waiting_s, page=page)

    return router
