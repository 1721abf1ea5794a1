"""``/workflows/{id}/{run}``: one run, what it did and what it waits for; updates; its history to download."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from orchestrator.api.backend import Backend
from orchestrator.api.pages.actions import ACTIONS, action_pages, done_words
from orchestrator.api.pages.journal import MAX_DIGITS, SHOWN, Shown, cursor_of, number_of, read_journal
from orchestrator.api.pages.live import Live, seen
from orchestrator.api.pages.rendering import link_of, now_ms, page_router, render
from orchestrator.api.pages.timelines import MAX_TURNS_DRAWN, Timelines
from orchestrator.api.pages.updates import REDRAW_S, Updates
from orchestrator.api.responses import JSON
from orchestrator.client.reads import AsyncReader
from orchestrator.codec.query import quoted
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import RunRow

MAX_PENDING_SHOWN = 100
"""Open activities and timers on the page; a fan-out has thousands, and the drawing has them all."""

MAX_LATER = 50
"""Later runs of the same id among which the next one is looked for: lists have the newest first."""

DOWNLOAD_TURNS = 500
"""Turns of a download that are in memory at a time."""

STANDS = frozenset(
    {
        WorkflowStatus.RUNNING,
        WorkflowStatus.BLOCKED,
        WorkflowStatus.TERMINATED,
        WorkflowStatus.TIMED_OUT,
    }
)
"""Of runs whose code stands somewhere: that of others has come to its end."""

Order = Literal["newest", "oldest"]


class Asked(NamedTuple):
    """What somebody wants to see of a run."""

    workflow_id: str
    run_id: str
    show: Shown = ""
    order: Order = "newest"
    at: str = ""


class Siblings(NamedTuple):
    """The runs of the same id that began next before and after this one, and the latest of those.

    ``later`` None with a ``latest`` one: there are too many in between.
    """

    earlier: RunRow | None = None
    later: RunRow | None = None
    latest: RunRow | None = None


def run_pages(backend: Backend) -> APIRouter:
    """The page of a run."""
    router = page_router()
    router.include_router(action_pages(backend))
    reader, timelines = backend.reader, Timelines(backend.reader)

    @router.get("/workflows/{workflow_id:name}")
    async def latest(request: Request, workflow_id: str) -> Response:
        found = await reader.describe(workflow_id)
        return RedirectResponse(link_of(request, "/workflows", workflow_id, found.row.run_id), 303)

    @router.get("/workflows/{workflow_id:name}/{run_id:name}")
    async def run(  # noqa: PLR0917  # by name, in the URL
        request: Request,
        workflow_id: str,
        run_id: str,
        show: Annotated[Shown, Query()] = "",
        order: Annotated[Order, Query()] = "newest",
        at: Annotated[str, Query()] = "",
        done: Annotated[str, Query()] = "",
        bookmark: Annotated[str, Query()] = "",
    ) -> Response:
        asked = Asked(workflow_id, run_id, show, order, at)
        context = await _context(backend.reads(bookmark), timelines, asked)
        return render(request, "run.html", done=done_words(done, context["found"]), **context)

    @router.get("/workflows/{workflow_id:name}/{run_id:name}/live")
    async def live(  # noqa: PLR0917  # by name, in the URL
        request: Request,
        workflow_id: str,
        run_id: str,
        turn: Annotated[int, Query(ge=0, lt=10**MAX_DIGITS)] = 0,
        show: Annotated[Shown, Query()] = "",
        order: Annotated[Order, Query()] = "newest",
        at: Annotated[str, Query()] = "",
    ) -> Response:
        asked = Asked(workflow_id, run_id, show, order, at)
        await reader.describe(workflow_id, run_id)  # an unknown run is an error, not a stream
        shown = number_of(seen(request))
        partition = partition_of(workflow_id, max(1, len(reader.positions())))
        updates = Updates(
            request,
            reader,
            (workflow_id, run_id),
            lambda: _context(reader, timelines, asked),
            lambda: _drawing(reader, timelines, asked),
            turn=turn if shown is None else shown,
            fixed=("events",) if at else (),
        )
        return Live(backend.watch, partition, updates.next, refresh_s=REDRAW_S)

    @router.get("/workflows/{workflow_id:name}/{run_id:name}/history.json")
    async def download(request: Request, workflow_id: str, run_id: str) -> Response:
        await reader.describe(workflow_id, run_id)
        return StreamingResponse(
            _exported(reader, workflow_id, run_id), media_type=JSON, headers=_attachment(run_id)
        )

    return router


async def _context(reader: AsyncReader, timelines: Timelines, asked: Asked) -> dict[str, Any]:
    """What the template shows. The turn is read first: all else is at least as new."""
    workflow_id, run_id, after = asked.workflow_id, asked.run_id, cursor_of(asked.at)
    drawing = await _drawing(reader, timelines, asked)
    activities = drawing["look"].timeline.activities
    names = {number: bar.name for number, bar in activities.items()}
    found = await reader.describe(workflow_id, run_id)
    siblings, journal = await asyncio.gather(
        _siblings(reader, found.row),
        read_journal(
            reader,
            workflow_id,
            run_id,
            shown=asked.show,
            newest=asked.order == "newest",
            after=after,
            names=names,
        ),
    )
    return {
        "asked": asked,
        "found": found,
        "row": found.row,
        "journal": journal,
        "siblings": siblings,
        "shown_kinds": SHOWN,
        "actions": ACTIONS,
        "stands": STANDS,
        "max_pending": MAX_PENDING_SHOWN,
        **drawing,
    }


async def _drawing(reader: AsyncReader, timelines: Timelines, asked: Asked) -> dict[str, Any]:
    """What the drawing alone shows."""
    look = await timelines.look(asked.workflow_id, asked.run_id, now_ms(), reader=reader)
    return {"look": look, "max_turns": MAX_TURNS_DRAWN}


async def _siblings(reader: AsyncReader, row: RunRow) -> Siblings:
    same = f"WorkflowId = {quoted(row.workflow_id)}"
    before, since = await asyncio.gather(
        reader.list_runs(f"{same} AND StartTime < {row.start_time_ms}", limit=1),
        reader.list_runs(f"{same} AND StartTime >= {row.start_time_ms}", limit=MAX_LATER + 1),
    )
    ids = [one.run_id for one in since.rows]
    known = row.run_id in ids
    place = ids.index(row.run_id) if known else len(ids)
    later, earlier = since.rows[:place], since.rows[place + 1 :] + before.rows
    return Siblings(
        earlier=earlier[0] if earlier else None,
        later=later[-1] if later and known else None,
        latest=later[0] if later else None,
    )


async def _exported(reader: AsyncReader, workflow_id: str, run_id: str) -> AsyncIterator[bytes]:
    """A history as JSON, as ``workflow show -o json`` has it, a piece at a time."""
    page = await reader.history(workflow_id, run_id, limit=DOWNLOAD_TURNS)
    offsets = list(page.offsets)
    head = {"workflow_id": page.workflow_id, "run_id": page.run_id, "workflow_type": page.workflow_type}
    yield msgspec.json.encode(head)[:-1] + b',"turns":['
    between = b""
    while page.turns:
        yield between + b",".join(map(msgspec.json.encode, page.turns))
        between = b","
        page = await reader.history(workflow_id, run_id, after_turn=page.turns[-1].turn, limit=DOWNLOAD_TURNS)
        offsets += page.offsets
    yield b'],"partition":%d,"offsets":%s}' % (page.partition, msgspec.json.encode(offsets))


def _attachment(run_id: str) -> dict[str, str]:
    """A file that is saved, never shown, under the run's name."""
    name = "".join(sign for sign in run_id if sign.isascii() and sign.isalnum())
    return {
        "Content-Disposition": f'attachment; filename="history-{name}.json"',
        "X-Content-Type-Options": "nosniff",
    }
