"""What changes on the page of a run: the parts of it that a new turn has made different."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from fastapi import Request

from orchestrator.api.pages.live import Update
from orchestrator.api.pages.parts import partial, sum_of
from orchestrator.api.pages.rendering import fragment
from orchestrator.client.reads import AsyncReader

PARTS = ("summary", "values", "open", "drawing", "events")
"""The parts: blocks of the template, each in an element with the id ``run-`` and its name."""


class Updates:
    """Those of one page, from the turn on that it shows. They are numbered by turns.

    Args:
        request: of the page; says below which path it is.
        reader: the read side.
        run: the ids of workflow and run.
        context: what the template shows, as it stands now.
        turn: the last one that the page shows.
        fixed: parts that stay as they are.
    """

    def __init__(
        self,
        request: Request,
        reader: AsyncReader,
        run: tuple[str, str],
        context: Callable[[], Awaitable[dict[str, Any]]],
        *,
        turn: int,
        fixed: Collection[str] = (),
    ) -> None:
        self._request, self._reader, self._run, self._context = request, reader, run, context
        self._turn = turn
        self._parts = [name for name in PARTS if name not in fixed]
        self._sent: dict[str, str] = {}
        self._asked = False

    async def next(self) -> Update | None:
        """The parts that differ from what was sent last; None if there is no new turn."""
        first, self._asked = not self._asked, True
        page = await self._reader.history(*self._run, after_turn=self._turn, newest=True, limit=1)
        if not page.turns:
            return await self._over() if first else None
        context = await self._context()
        parts = await asyncio.to_thread(self._render, context)
        sums = {name: sum_of(html) for name, html in parts.items()}
        changed = [name for name in parts if self._sent.get(name) != sums[name]]
        self._sent = sums
        # What was read after it shows that turn at least, even if the drawing ends before.
        self._turn = max(page.turns[-1].turn, context["look"].turn)
        html = "".join(partial(f"run-{name}", parts[name]) for name in changed)
        return Update(html, str(self._turn), last=not context["row"].status.is_open)

    def _render(self, context: dict[str, Any]) -> dict[str, str]:
        return {name: fragment(self._request, "run.html", name, **context) for name in self._parts}

    async def _over(self) -> Update | None:
        """There will never be a new turn if the run is closed."""
        found = await self._reader.describe(*self._run)
        return None if found.row.status.is_open else Update("", str(self._turn), last=True)
