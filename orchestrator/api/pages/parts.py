"""What changes on a page whose changing parts are blocks of its template."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any

from fastapi import Request

from orchestrator.api.pages.live import Update, seen
from orchestrator.api.pages.rendering import fragment

BEATS_S = 2.0
"""Between two looks at what beats tell, which no partition of history shows: they come once per second."""

_AGO = re.compile(r'(data-ago="\d+">)[^<]*')
"""How long ago something was: browsers count on by themselves."""


class Parts:
    """The parts of one page, as updates.

    Args:
        request: whose page it is; if it is a second try, the browser says what it has seen.
        template: of the page.
        blocks: of the template, by the ids of the elements that they stand in.
        look: what the page shows now; None leaves the page as it is.
    """

    def __init__(
        self,
        request: Request,
        template: str,
        blocks: Mapping[str, str],
        look: Callable[[], Awaitable[Mapping[str, Any] | None]],
    ) -> None:
        self._request, self._template, self._blocks, self._look = request, template, blocks, look
        self._sent: dict[str, str] = {}
        self._seen = seen(request)

    async def next(self) -> Update | None:
        """The parts that differ from what was sent last; None if all are as they were."""
        context = await self._look()
        if context is None:
            return None
        # In a thread: the loop serves workers and clients, who need not wait for some milliseconds of HTML.
        parts = await asyncio.to_thread(self._render, context)
        sums = {place: sum_of(html) for place, html in parts.items()}
        changed = [place for place in parts if sums[place] != self._sent.get(place)]
        whole = sum_of("".join(sums.values()))
        self._sent = sums
        if not changed or whole == self._seen:
            return None
        self._seen = whole
        return Update("".join(partial(place, parts[place]) for place in changed), whole)

    def _render(self, context: Mapping[str, Any]) -> dict[str, str]:
        return {
            place: fragment(self._request, self._template, block, **context)
            for place, block in self._blocks.items()
        }


def partial(place: str, html: str) -> str:
    """Asks htmx to change one element in place."""
    return f'<hx-partial hx-target="#{place}" hx-swap="innerMorph">{html}</hx-partial>'


def sum_of(html: str) -> str:
    """What tells two versions of a part apart; times that pass do not."""
    return sha256(_AGO.sub(r"\1", html).encode(errors="replace")).hexdigest()[:16]
