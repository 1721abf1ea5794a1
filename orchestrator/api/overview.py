"""A view over HTTP: how far it has read, who beats, and what nobody could use."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from orchestrator.api.plain import plain
from orchestrator.api.responses import answer, gives
from orchestrator.protocol.views import DeadLetterPage, Queues, ViewStatus
from orchestrator.view.reader import Overview

MAX_LETTERS = 1_000
"""Dead letters on one page: up to 4 MB of the bytes that could not be used."""

UNREADY = 503
"""Status of a view that cannot answer yet, for whoever decides by it where requests go."""


def overview_routes(overview: Overview) -> APIRouter:
    """The routes of a view about itself."""
    router = APIRouter(tags=["view"])

    @router.get(
        "/status",
        responses={
            **gives(ViewStatus, "It can be asked."),
            UNREADY: gives(ViewStatus, "It is still reading, or does not reach the log.")[200],
        },
    )
    async def status() -> Response:
        """How far each partition was read, which workers and coordinators beat, what is wrong."""
        found = overview.status()
        ready = found.partitions and all(one.ready for one in found.partitions)
        return answer(plain(found), 200 if ready else UNREADY)

    @router.get("/cluster", responses=gives(ViewStatus, "As far as it is known here."))
    async def cluster() -> Response:
        """What `/status` says, for people: coordinators with their partitions, workers, versions, lag."""
        return answer(plain(overview.status()))

    @router.get("/queues", responses=gives(Queues, "By name."))
    async def queues() -> Response:
        """The task queues: how much waits, since when, and who serves them."""
        return answer(plain(overview.queues()))

    @router.get("/dead-letters", responses=gives(DeadLetterPage, "Newest first."))
    async def dead_letters(
        limit: Annotated[int, Query(ge=1, le=MAX_LETTERS)] = 100,
        page: Annotated[str, Query(description="`next_page` of the page before")] = "",
    ) -> Response:
        """Records that could not be decoded or decided, with the reason and the first of their bytes."""
        return answer(plain(await asyncio.to_thread(overview.dead_letters, limit, page)))

    return router
