"""``/queues`` and ``/cluster``: who works on what, as the beats tell, and what nobody could use."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from orchestrator.api.backend import Backend
from orchestrator.api.pages.live import Live
from orchestrator.api.pages.parts import BEATS_S, Parts
from orchestrator.api.pages.rendering import page_router, render
from orchestrator.protocol.views import ViewStatus
from orchestrator.view.queues import ALIVE_MS
from orchestrator.view.reader import Overview

PAGE_LETTERS = 50
"""Dead letters on one page, each with the first of its bytes."""


def cluster_pages(backend: Backend, overview: Overview) -> APIRouter:
    """Task queues, and the processes of the cluster."""
    router = page_router()

    async def backlog() -> dict[str, Any]:
        return {"queues": (await asyncio.to_thread(overview.queues)).queues}

    @router.get("/queues")
    async def queues(request: Request) -> Response:
        return render(request, "queues.html", **await backlog())

    @router.get("/live/queues")
    async def live_queues(request: Request) -> Response:
        parts = Parts(request, "queues.html", {"live": "live"}, backlog)
        return Live(backend.watch, None, parts.next, refresh_s=BEATS_S)

    async def members() -> dict[str, Any]:
        status = await asyncio.to_thread(overview.status)
        return {"view": status, "owners": owners(status), "alive_ms": ALIVE_MS}

    @router.get("/cluster")
    async def cluster(request: Request, page: Annotated[str, Query()] = "") -> Response:
        letters = await asyncio.to_thread(overview.dead_letters, PAGE_LETTERS, page)
        return render(request, "cluster.html", letters=letters, page=page, **await members())

    @router.get("/live/cluster")
    async def live_cluster(request: Request) -> Response:
        parts = Parts(request, "cluster.html", {"live": "live"}, members)
        return Live(backend.watch, None, parts.next, refresh_s=BEATS_S)

    return router


def owners(status: ViewStatus) -> dict[int, str]:
    """Who owns each partition, by the last beats; who is silent owns none."""
    return {
        partition: seen.beat.identity or seen.beat.coordinator[:8]
        for seen in status.coordinators
        if seen.silent_ms <= ALIVE_MS
        for partition in seen.beat.partitions
    }
