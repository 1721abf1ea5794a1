"""Updates of pages, pushed: server-sent events whose messages are pieces of HTML.

A message is numbered by how far what it shows has come; a browser that lost the connection says the last
number it has seen, and gets what has changed since. A page asks for nothing by itself, and works without
updates.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from fastapi import Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from orchestrator.api.watch import Watch, Watcher
from orchestrator.errors import Unavailable, WorkflowNotFound

HEARTBEAT_S = 15.0
"""Between two signs of life: below the idle limits of common proxies."""

APART_S = 0.25
"""Between two messages to one page, at least: more often, nobody can follow."""

COST = 10
"""A message is followed by so many times as long a rest as it took to make, for each page that gets updates:
all of them together take a tenth of a processor's time at most, however much there is to tell."""

SEND_S = 20.0
"""A browser that takes nothing for so long is let go; it comes again if it still lives."""

STILL_HERE = ": still here\n\n"
"""A comment: browsers pass over it, and proxies see that the connection lives."""

CLOSE = "close"
"""The event after which there is nothing more to come; pages say ``hx-sse:close="close"``."""


class Update(NamedTuple):
    """What has changed on a page: HTML for htmx, and how far it has come. After the ``last`` comes none."""

    html: str
    id: str
    last: bool = False


_LINE_END = re.compile(r"\r\n|\r|\n")
"""What ends a line of an event, and nothing else does."""

Updates = Callable[[], Awaitable[Update | None]]
"""Brings what has changed since it was asked last; None if nothing has."""


class Live(StreamingResponse):
    """The updates of one page, as an answer. One that a browser does not take holds nothing up.

    Args:
        watch: tells when something may have changed.
        partition: of history, that the page is about; None for all of them.
        updates: asked at once, and when something may have changed.
        refresh_s: asked again after so long too, though no partition moved; None for what only those change.

    Raises:
        Unavailable: too many pages get updates, or the process ends.
    """

    media_type = "text/event-stream"

    def __init__(
        self, watch: Watch, partition: int | None, updates: Updates, *, refresh_s: float | None = None
    ) -> None:
        self._watch, self._watcher = watch, watch.begin(partition)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # proxies must not collect it
        super().__init__(_events(watch, self._watcher, updates, refresh_s), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; whatever ends that, nobody watches any more."""
        try:
            if scope["method"] == "HEAD":
                await Response(media_type=self.media_type)(scope, receive, send)
            else:
                await super().__call__(scope, receive, send)
        finally:
            self._watch.end(self._watcher)

    async def stream_response(self, send: Send) -> None:
        """Send the events; each must be taken in time."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(SEND_S):
                await send(message)

        with suppress(TimeoutError):
            await super().stream_response(send_in_time)


async def _events(
    watch: Watch, watcher: Watcher, updates: Updates, refresh_s: float | None
) -> AsyncIterator[str]:
    yield STILL_HERE  # whatever stands between passes on what has begun
    told_s = monotonic()
    while not watcher.closed:
        began = monotonic()
        try:
            found = await updates()
        except Unavailable:  # a partition is being read again: it moves when it is there
            found = None
        except WorkflowNotFound:  # it has gone with its retention
            yield event("", kind=CLOSE)
            return
        if found is not None:
            told_s = began
            yield event(found.html, id=found.id)
            if found.last:
                yield event("", kind=CLOSE)
                return
        elif began - told_s >= HEARTBEAT_S:
            told_s = began
            yield STILL_HERE
        await watcher.rest(max(APART_S, COST * watch.watching * (monotonic() - began)))
        while not await watcher.moved(refresh_s or HEARTBEAT_S) and refresh_s is None:
            told_s = monotonic()
            yield STILL_HERE


def event(data: str, *, id: str = "", kind: str = "") -> str:
    """One event as it goes over the wire."""
    lines = [f"event: {kind}"] if kind else []
    lines += [f"id: {id}"] if id else []
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return "\n".join(lines) + "\n\n"


def seen(request: Request) -> str:
    """The number of the last message that a browser has seen; "" if it says none."""
    return request.headers.get("Last-Event-ID", "")
