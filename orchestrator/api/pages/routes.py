"""All pages, as one router."""

from __future__ import annotations

from fastapi import APIRouter

from orchestrator.api.backend import Backend
from orchestrator.api.pages.cluster import cluster_pages
from orchestrator.api.pages.failures import failures_pages
from orchestrator.api.pages.overview import overview_pages
from orchestrator.api.pages.runs import runs_pages
from orchestrator.api.pages.static import static_routes
from orchestrator.view.reader import Overview


def page_routes(backend: Backend, overview: Overview) -> APIRouter:
    """The pages and the files that they load. They ask what they show in process."""
    router = APIRouter()
    router.include_router(static_routes())
    router.include_router(overview_pages(backend, overview))
    router.include_router(runs_pages(backend))
    router.include_router(failures_pages(backend))
    router.include_router(cluster_pages(backend, overview))
    return router
