"""All pages, as one router."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from orchestrator.api.backend import Backend
from orchestrator.api.pages.cluster import cluster_pages
from orchestrator.api.pages.docs import docs_pages
from orchestrator.api.pages.failures import failures_pages
from orchestrator.api.pages.overview import overview_pages
from orchestrator.api.pages.rendering import error_page, here, link_of
from orchestrator.api.pages.run import run_pages
from orchestrator.api.pages.runs import runs_pages
from orchestrator.api.pages.static import static_routes
from orchestrator.log.wire import PREFIX
from orchestrator.view.reader import Overview


def page_routes(backend: Backend, overview: Overview, openapi: Callable[[], dict[str, Any]]) -> APIRouter:
    """The pages and the files that they load. They ask in process; ``openapi`` makes the API's document."""
    router = APIRouter()
    router.include_router(static_routes())
    router.include_router(overview_pages(backend, overview))
    router.include_router(runs_pages(backend))
    router.include_router(run_pages(backend))
    router.include_router(failures_pages(backend))
    router.include_router(cluster_pages(backend, overview))
    router.include_router(docs_pages(openapi))
    return router


def install_page_errors(app: FastAPI) -> None:
    """Whoever looks for a page that there is not gets one that says so; programs are answered as before."""
    told = app.exception_handlers[HTTPException]

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        place = here(request)
        if "text/html" in request.headers.get("accept", "") and not place.startswith(PREFIX):
            if error.status_code == 404 and place.endswith("/") and place.strip("/"):
                query = f"?{request.url.query}" if request.url.query else ""
                return RedirectResponse(link_of(request, f"/{place.strip('/')}") + query, 307)
            return error_page(request, error.status_code, f"{request.method} {place}: {error.detail}")
        answer: Response = await told(request, error)  # type: ignore[misc]
        return answer
