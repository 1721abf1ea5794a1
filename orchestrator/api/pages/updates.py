"""What changes on the page of a run: the parts of it that a new turn has made different."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from time import monotonic
from typing import Any

from fastapi import Request

from orchestrator.api.pages.live import Update
from orchestrator.api.pages.parts import partial, sum_of
from orchestrator.api.pages.rendering import fragment
from orchestrator.client.reads import AsyncReader

PARTS = ("summary", "actions", "values", "open", "drawing", "events")
"""The parts: blocks of the template, each in an element with the id ``run-`` and its name."""

REDRAW_S = 15.0
"""What is open grows in the drawing, though nothing happens: it is drawn again so often."""

REDRAW_COST = 100
"""A drawing that is made again is followed by so many times as long a rest as it took: those of long runs
come less often."""

Look = Callable[[], Awaitable[dict[str, Any]]]


class Updates:
    """Those of one page, from the turn on that it shows. They are numbered by turns.

    Args:
        request: of the page; says below which path it is.
        reader: the read side.
        run: the ids of workflow and run.
        context: what the template shows, as it stands now.
        drawing: as much of that as the block ``drawing`` needs.
        turn: the last one that the page shows.
        fixed: parts that stay as they are.
    """

    def __init__(
        self,
        request: Request,
        reader: AsyncReader,
        run: tuple[str, str],
        context: Look,
        drawing: Look,
        *,
        turn: int,
        fixed: Collection[str] = (),
    ) -> None:
        self._request, self._reader, self._run = request, reader, run
        self._context, self._drawing = context, drawing
        self._turn = turn
        self._parts = [name for name in PARTS if name not in fixed]
        self._sent: dict[str, str] = {}
        self._drawn = ""
        self._redraw_s = monotonic() + REDRAW_S
        self._asked = False

    async def next(self) -> Update | None:
        """The parts that differ from what was sent last; None if there is no new turn, and no new drawing."""
        over = not self._asked and await self._is_closed()
        self._asked = True
        page = await self._reader.history(*self._run, after_turn=self._turn, newest=True, limit=1)
        if not page.turns:
            return Update("", str(self._turn), last=True) if over else await self._redrawn()
        context = await self._context()
        parts = await asyncio.to_thread(self._render, context)
        sums = {name: sum_of(html) for name, html in parts.items()}
        changed = [name for name in parts if self._sent.get(name) != sums[name]]
        self._sent = sums
        self._redraw_s = monotonic() + REDRAW_S
        # What was read after it shows that turn at least, even if the drawing ends before.
        self._turn = max(page.turns[-1].turn, context["look"].turn)
        html = "".join(partial(f"run-{name}", parts[name]) for name in changed)
        return Update(html, str(self._turn), last=not context["row"].status.is_open)

    def _render(self, context: dict[str, Any]) -> dict[str, str]:
        return {name: fragment(self._request, "run.html", name, **context) for name in self._parts}

    async def _redrawn(self) -> Update | None:
        """The drawing as it stands now, if it is time; of one that looks as before, only where it ends."""
        began_s = monotonic()
        if began_s < self._redraw_s:
            return None
        context = await self._drawing()
        drawing, ends = await asyncio.to_thread(self._render_drawing, context)
        drawn, self._drawn = self._drawn, sum_of(drawing.replace(ends, "", 1))
        now_s = monotonic()
        self._redraw_s = now_s + max(REDRAW_S, REDRAW_COST * (now_s - began_s))
        part = partial("run-ends", ends) if self._drawn == drawn else partial("run-drawing", drawing)
        return Update(part, str(self._turn))

    def _render_drawing(self, context: dict[str, Any]) -> tuple[str, str]:
        drawing = fragment(self._request, "run.html", "drawing", **context)
        return drawing, fragment(self._request, "run.html", "ends", **context)

    async def _is_closed(self) -> bool:
        """Then there is no turn but those that can be read now."""
        return not (await self._reader.describe(*self._run)).row.status.is_open
