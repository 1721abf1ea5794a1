"""``/queues`` and ``/cluster``: who works on what, as the beats tell, and what nobody could use."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from orchestrator.api.pages.rendering import page_router, render
from orchestrator.protocol.views import ViewStatus
from orchestrator.view.queues import ALIVE_MS
from orchestrator.view.reader import Overview

PAGE_LETTERS = 50
"""Dead letters on one page, each with the first of its bytes."""


def cluster_pages(overview: Overview) -> APIRouter:
    """Task queues, and the processes of the cluster."""
    router = page_router()

    @router.get("/queues")
    async def queues(request: Request) -> Response:
        found = await asyncio.to_thread(overview.queues)
        return render(request, "queues.html", queues=found.queues)

    @router.get("/cluster")
    async def cluster(request: Request, page: Annotated[str, Query()] = "") -> Response:
        status = await asyncio.to_thread(overview.status)
        letters = await asyncio.to_thread(overview.dead_letters, PAGE_LETTERS, page)
        return render(
            request,
            "cluster.html",
            view=status,
            owners=owners(status),
            letters=letters,
            page=page,
            alive_ms=ALIVE_MS,
        )

    return router


def owners(status: ViewStatus) -> dict[int, str]:
    """Who owns each partition, by the last beats; who is silent owns none."""
    return {
        partition: seen.beat.identity
        for seen in status.coordinators
        if seen.silent_ms <= ALIVE_MS
        for partition in seen.beat.partitions
    }
