"""For those who operate a process with an HTTP API: metrics and health beside it, on the same port."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Response

from orchestrator.telemetry.endpoint import PATHS, Operations


def operations_routes(operations: Operations) -> APIRouter:
    """``/metrics``, ``/live`` and ``/ready``."""
    router = APIRouter(tags=["operations"])

    def route(path: str) -> None:
        async def get(accept: Annotated[str, Header()] = "") -> Response:
            found = await asyncio.to_thread(operations.answer, path, accept)
            return Response(found.body, found.status, media_type=found.content_type)

        router.add_api_route(path, get, include_in_schema=False)

    for path in PATHS:
        route(path)
    return router
