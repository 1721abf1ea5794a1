"""Typed messages over HTTP: what clients and workers in other processes, and other languages, speak.

docs/http-workers.md tells, request by request, what a worker does.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from orchestrator.api.backend import Backend
from orchestrator.api.responses import answer, body_of, gives, takes
from orchestrator.api.streams import Kind
from orchestrator.errors import OrchestratorError, UsageError
from orchestrator.log import wire
from orchestrator.protocol.commands import Command, CompleteActivity
from orchestrator.protocol.ids import check_workflow_id
from orchestrator.protocol.tasks import WorkerBeat
from orchestrator.protocol.values import Payload

After = Annotated[int, Query(ge=0, description="`number` of the batch before; 0 at first")]
WaitS = Annotated[float, Query(ge=0, le=wire.MAX_WAIT_S, description="seconds to wait for something")]

_COMMANDS: Any = tuple[wire.HttpCommand, ...]
_EXAMPLE_REPORT = CompleteActivity(
    request_id="019a8f3c5e7b0f1e2d3c4b5a69788796/3/1/1",
    identity="worker-1",
    workflow_id="order-17",
    run_id="019a8f3c5e7b0f1e2d3c4b5a69788796",
    activity_id=3,
    attempt=1,
    dispatch=1,
    worker="7c9e6679742540de944be07fc1f90ae7",
    result=Payload(data=b'"shipped"'),
)
_EXAMPLE_BEAT = WorkerBeat(
    worker="7c9e6679742540de944be07fc1f90ae7",
    identity="worker-1",
    task_queues=("default",),
    slots=10,
    running=2,
    inbox=5,
    inbox_offset=40,
    number=12,
    activity_types=("charge", "ship"),
)


def message_routes(backend: Backend) -> APIRouter:
    """The routes for typed messages."""
    router = APIRouter(tags=["typed messages"])
    streams, log = backend.streams, backend.log

    async def send(command: Command) -> wire.Problem | None:
        try:
            check_workflow_id(getattr(command, "workflow_id", ""))
            await log.send(command)
        except OrchestratorError as error:
            return wire.problem_of(error)[1]
        return None

    @router.post(
        "/commands",
        openapi_extra=takes(_COMMANDS, [_EXAMPLE_REPORT]),
        responses=gives(wire.Sent, "What became of each.", wire.Sent(problems=(None,))),
    )
    async def send_commands(request: Request) -> Response:
        """Append commands, in order; the answer comes when they are durable.

        Who wants to know what the engine says to a command sets `reply_to` and reads `replies`. Repeat a
        command that was not acknowledged, with the same `request_id`: it has one effect.
        """
        commands: tuple[Command, ...] = await body_of(request, _COMMANDS)
        if len(commands) > wire.MAX_BATCH_COMMANDS:
            raise UsageError(
                f"{len(commands)} commands in one request; at most {wire.MAX_BATCH_COMMANDS} are taken"
            )
        return answer(wire.Sent(problems=tuple(await asyncio.gather(*map(send, commands)))))

    @router.post(
        "/workers/{worker:name}/beats",
        openapi_extra=takes(WorkerBeat, _EXAMPLE_BEAT),
        responses=gives(wire.Appended, "Passed on."),
    )
    async def beat(request: Request, worker: str) -> Response:
        """A worker lives. Numbers count from 1; `regular` beats are those of the clock, once per second."""
        found: WorkerBeat = await body_of(request, WorkerBeat)
        if found.worker != worker:
            raise UsageError(f"the beat is of worker {found.worker!r}, the path names {worker!r}")
        streams.check(Kind.WORKER, worker)
        return answer(wire.Appended(offset=await log.beat(found)))

    def stream(kind: Kind, what: str, batch: type[wire.Batch], about: str) -> None:
        place = f"/{kind.value}/{{name:name}}"

        async def open_stream(name: str) -> Response:
            return answer(await streams.open(kind, name))

        async def read_stream(name: str, after: After = 0, wait_s: WaitS = 10.0) -> Response:
            number, offset, messages = await streams.next(kind, name, after, wait_s)
            return answer(batch(number=number, offset=offset, messages=tuple(messages)))  # type: ignore[call-arg]

        async def close_stream(name: str) -> Response:
            await streams.close(kind, name)
            return Response(status_code=204)

        router.add_api_route(
            place,
            open_stream,
            methods=["PUT"],
            summary=f"Open the {what} of one of the {kind.value}",
            description=about,
            responses=gives(wire.Opened, "It begins at the end of its partition."),
        )
        router.add_api_route(
            f"{place}/{what}",
            read_stream,
            methods=["GET"],
            summary=f"Wait for {what}",
            description=f"{about} `after` acknowledges the batch of that number; a repeat brings the same.",
            responses=gives(batch, f"The next {what}; empty after `wait_s`."),
        )
        router.add_api_route(
            place,
            close_stream,
            methods=["DELETE"],
            status_code=204,
            summary=f"Read no more {what}",
            responses=gives(None, "Closed.", status=204),
        )

    stream(Kind.WORKER, "tasks", wire.Tasks, "The inbox of a worker incarnation.")
    stream(Kind.CLIENT, "replies", wire.Replies, "What the engine answers to the commands of one client.")
    stream(Kind.OBSERVER, "beats", wire.Beats, "The beats of all workers and coordinators.")
    return router
