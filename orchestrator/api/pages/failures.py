"""``/failures`` and ``/stuck``: what somebody should look into."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from orchestrator.api.backend import Backend
from orchestrator.api.pages.live import Live
from orchestrator.api.pages.parts import BEATS_S, Parts
from orchestrator.api.pages.rendering import page_router, render
from orchestrator.protocol.views import STUCK_ATTEMPTS, STUCK_WAITING_MS
from orchestrator.workflow.durations import to_ms

PAGE_GROUPS = 200
"""Failure groups on the page, those of most runs: nobody looks into more kinds of failures at a time."""

PAGE_ROWS = 100
"""Rows on one page of what is stuck."""

Attempts = Annotated[int, Query(ge=1)]
Waiting = Annotated[float, Query(ge=0)]


def failures_pages(backend: Backend) -> APIRouter:
    """Failure groups, and what is stuck."""
    router = page_router()
    reader = backend.reader

    async def groups() -> dict[str, Any]:
        return {"failures": await reader.failures(limit=PAGE_GROUPS)}

    @router.get("/failures")
    async def failures(request: Request) -> Response:
        return render(request, "failures.html", **await groups())

    @router.get("/live/failures")
    async def live_failures(request: Request) -> Response:
        return Live(backend.watch, None, Parts(request, "failures.html", {"live": "live"}, groups).next)

    async def rows(attempts: int, waiting_s: float, page: str = "") -> dict[str, Any]:
        waiting_ms = to_ms(waiting_s, "waiting_s")
        found = await reader.stuck(attempts=attempts, waiting_ms=waiting_ms, limit=PAGE_ROWS, page=page)
        return {"stuck": found, "attempts": attempts, "waiting_s": waiting_s, "page": page}

    @router.get("/stuck")
    async def stuck(
        request: Request,
        attempts: Attempts = STUCK_ATTEMPTS,
        waiting_s: Waiting = STUCK_WAITING_MS / 1_000,
        page: Annotated[str, Query()] = "",
    ) -> Response:
        return render(request, "stuck.html", **await rows(attempts, waiting_s, page))

    @router.get("/live/stuck")
    async def live_stuck(
        request: Request, attempts: Attempts = STUCK_ATTEMPTS, waiting_s: Waiting = STUCK_WAITING_MS / 1_000
    ) -> Response:
        parts = Parts(request, "stuck.html", {"live": "live"}, lambda: rows(attempts, waiting_s))
        return Live(backend.watch, None, parts.next, refresh_s=BEATS_S)

    return router
