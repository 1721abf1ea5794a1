"""All pages, as one router."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.api.backend import Backend
from orchestrator.api.pages.runs import runs_pages
from orchestrator.api.pages.static import static_routes
from orchestrator.view.reader import Overview


def page_routes(backend: Backend, overview: Overview) -> APIRouter:
    """The pages and the files that they load. They ask what they show in process."""
    router = APIRouter()
    router.include_router(static_routes())
    router.include_router(runs_pages(backend))
    return router
