"""The HTTP API: one FastAPI application over one engine."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from orchestrator.api import messages
from orchestrator.api.backend import Backend
from orchestrator.api.guard import LOCAL_HOSTS, Guard
from orchestrator.api.lists import list_routes
from orchestrator.api.operations import operations_routes
from orchestrator.api.overview import overview_routes
from orchestrator.api.pages.routes import install_page_errors, page_routes
from orchestrator.api.responses import install_error_handlers, schemas
from orchestrator.api.workflows import workflow_routes
from orchestrator.log.wire import PREFIX
from orchestrator.telemetry.endpoint import Operations

ABOUT = "Durable execution for Python whose only infrastructure is Kafka.\n\n"


def create_app(
    backend: Backend,
    *,
    operations: Operations | None = None,
    hosts: frozenset[str] | None = LOCAL_HOSTS,
    base_path: str = "",
    origin: str = "",
) -> FastAPI:
    """The application.

    Args:
        backend: what it serves; it stays the caller's to close.
        operations: metrics and health, if it serves them too.
        hosts: names under which it may be asked for; None does not check.
        base_path: the path that a proxy serves it below, such as "/orchestrator"; the proxy may pass it on
            with requests, or take it away.
        origin: the scheme and host of that proxy, such as "https://ops.example.com". It may name itself as
            the host of requests, or this machine.
    """
    app = FastAPI(
        title="Orchestrator",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(list_routes(backend), prefix=PREFIX)
    app.include_router(workflow_routes(backend), prefix=PREFIX)
    app.include_router(messages.message_routes(backend), prefix=PREFIX)
    if backend.overview is not None:
        app.include_router(overview_routes(backend.overview), prefix=PREFIX)
    if operations is not None:
        app.include_router(operations_routes(operations))
    app.add_middleware(Guard, hosts=hosts, base_path=base_path, origin=origin)
    install_error_handlers(app)
    install_page_errors(app)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            about = ABOUT + (messages.__doc__ or "")
            found = get_openapi(title=app.title, version=app.version, description=about, routes=app.routes)
            found.setdefault("components", {}).setdefault("schemas", {}).update(schemas())
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]

    if backend.overview is not None:
        app.include_router(page_routes(backend, backend.overview, openapi))
    return app
