"""Workflows over HTTP, in plain JSON: what the CLI does, and any program with an HTTP client can do."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from orchestrator.api.backend import Backend
from orchestrator.api.bodies import Answer, Call, Close, Result, Start, Started
from orchestrator.api.plain import plain
from orchestrator.api.responses import Bookmark, answer, body_of, gives, marked, takes
from orchestrator.errors import PayloadError, Unavailable, WorkflowFailure
from orchestrator.log.wire import MAX_WAIT_S
from orchestrator.protocol.traces import trace_context
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import History, RunDescription
from orchestrator.telemetry.traces import INCOMING

MAX_TURNS = 10_000
"""Turns in one answer. Longer histories are read in pieces, by ``after_turn``."""

RunId = Annotated[str, Query(description="one run; default the current, or else the last one")]


async def follow_trace(request: Request) -> None:
    """What the request asks of the engine belongs to the caller's trace, where it brings one (W3C)."""
    INCOMING.set(trace_context(request.headers))


_EXAMPLE_RUN = "019a8f3c5e7b0f1e2d3c4b5a69788796"


def workflow_routes(backend: Backend) -> APIRouter:
    """The routes under ``/workflows``."""
    router = APIRouter(tags=["workflows"], dependencies=[Depends(follow_trace)])
    client, reader = backend.client, backend.reader

    @router.post(
        "/workflows",
        status_code=201,
        openapi_extra=takes(Start, Start(type="Order", id="order-17", input=["o-17", 4200])),
        responses=gives(
            Started,
            "Started; it is durable.",
            Started(workflow_id="order-17", run_id=_EXAMPLE_RUN),
            status=201,
        ),
    )
    async def start_workflow(request: Request) -> Response:
        """Start a workflow. A repeat with the same `request_id` starts nothing new."""
        body: Start = await body_of(request, Start)
        handle = await client.start_workflow(
            body.type,
            *body.input,
            id=body.id,
            id_reuse_policy=body.id_reuse_policy,
            run_timeout=body.run_timeout_s,
            memo=body.memo,
            summary=body.summary,
            request_id=body.request_id,
        )
        return marked(answer(Started(workflow_id=handle.id, run_id=handle.run_id), 201), handle.bookmark)

    @router.get("/workflows/{workflow_id:name}", responses=gives(RunDescription, "As it stands."))
    async def describe_workflow(
        workflow_id: str,
        run_id: RunId = "",
        payloads: Literal["plain", "raw"] = "plain",
        bookmark: Bookmark = "",
    ) -> Response:
        """One run: input, result, what it waits for, what failed. `payloads=raw` keeps values as the
        bytes that were written (base64), with their encodings.
        """
        found = await backend.reads(bookmark).describe(workflow_id, run_id)
        return answer(plain(found) if payloads == "plain" else found)

    @router.get("/workflows/{workflow_id:name}/history", responses=gives(History, "The turns, as committed."))
    async def workflow_history(  # noqa: PLR0917  # by name, in the URL
        workflow_id: str,
        run_id: RunId = "",
        after_turn: Annotated[int, Query(ge=0)] = 0,
        before_turn: Annotated[int, Query(ge=0, description="0: to the end")] = 0,
        newest: Annotated[bool, Query(description="the last `limit` of these turns, not the first")] = False,
        limit: Annotated[int, Query(ge=1, le=MAX_TURNS)] = MAX_TURNS,
        bookmark: Bookmark = "",
    ) -> Response:
        """The history of one run, lossless: this is the export format that replays read."""
        reads = backend.reads(bookmark)
        return answer(
            await reads.history(
                workflow_id,
                run_id,
                after_turn=after_turn,
                before_turn=before_turn,
                newest=newest,
                limit=limit,
            )
        )

    @router.get(
        "/workflows/{workflow_id:name}/result",
        responses={
            **gives(
                Result,
                "The run is closed.",
                Result(
                    workflow_id="order-17", run_id=_EXAMPLE_RUN, status=WorkflowStatus.COMPLETED, result="ok"
                ),
            ),
            202: gives(Result, "The run is still open: ask again.", status=202)[202],
        },
    )
    async def workflow_result(
        workflow_id: str, run_id: RunId = "", wait_s: Annotated[float, Query(ge=0, le=MAX_WAIT_S)] = 0.0
    ) -> Response:
        """The result of a run; waits up to `wait_s` seconds for it."""
        found = await reader.describe(workflow_id, run_id)
        if found.row.status.is_open and wait_s > 0:
            handle = client.get_workflow_handle(workflow_id, found.row.run_id)
            with suppress(WorkflowFailure, PayloadError, Unavailable):
                await handle.result(timeout=wait_s)
            found = await reader.describe(workflow_id, found.row.run_id)
        row = found.row
        body = Result(
            workflow_id=row.workflow_id,
            run_id=row.run_id,
            status=row.status,
            result=plain(found.result),
            failure=plain(found.failure or found.blocked),
            tags=list(row.tags),
        )
        return answer(body, 202 if row.status.is_open else 200)

    @router.post(
        "/workflows/{workflow_id:name}/signals/{name:name}",
        status_code=204,
        openapi_extra=takes(Call, Call(input=["approved by Ann"]), required=False),
        responses=gives(None, "Accepted; it is durable.", status=204),
    )
    async def signal_workflow(request: Request, workflow_id: str, name: str) -> Response:
        """Send a signal."""
        body: Call = await body_of(request, Call)
        handle = client.get_workflow_handle(workflow_id, body.run_id)
        await handle.signal(name, *body.input, request_id=body.request_id)
        return marked(Response(status_code=204), handle.bookmark)

    @router.post(
        "/workflows/{workflow_id:name}/queries/{name:name}",
        openapi_extra=takes(Call, Call(), required=False),
        responses=gives(Answer, "What the query returned.", Answer(result="waiting for approval")),
    )
    async def query_workflow(request: Request, workflow_id: str, name: str) -> Response:
        """Ask a workflow something, without changing it. The query `__stack` tells where its code waits."""
        body: Call = await body_of(request, Call)
        handle = client.get_workflow_handle(workflow_id, body.run_id)
        result: Any = await handle.query(name, *body.input)
        return answer(Answer(result=result))

    async def close(request: Request, workflow_id: str, how: Literal["cancel", "terminate"]) -> Response:
        body: Close = await body_of(request, Close)
        handle = client.get_workflow_handle(workflow_id, body.run_id)
        await getattr(handle, how)(body.reason, request_id=body.request_id)
        return marked(Response(status_code=204), handle.bookmark)

    closing: dict[str, Any] = {
        "status_code": 204,
        "openapi_extra": takes(Close, Close(reason="ordered by mistake"), required=False),
        "responses": gives(None, "Accepted; it is durable.", status=204),
    }

    @router.post("/workflows/{workflow_id:name}/cancel", **closing)
    async def cancel_workflow(request: Request, workflow_id: str) -> Response:
        """Ask a workflow to cancel itself; its code may clean up first."""
        return await close(request, workflow_id, "cancel")

    @router.post("/workflows/{workflow_id:name}/terminate", **closing)
    async def terminate_workflow(request: Request, workflow_id: str) -> Response:
        """Close a workflow at once; its code hears nothing of it."""
        return await close(request, workflow_id, "terminate")

    return router
