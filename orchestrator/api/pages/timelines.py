"""Timelines of the runs that are looked at, kept while they are, so that an update folds only what is new."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from orchestrator.api.pages.picture import Picture, draw
from orchestrator.api.pages.timeline import Timeline
from orchestrator.client.reads import AsyncReader

READ_TURNS = 2_000
"""Turns that are read at a time."""

MAX_TURNS_DRAWN = 100_000
"""Of one run: beyond that the drawing ends, and says so."""

MAX_BARS_KEPT = 100_000
"""Of all timelines together, some 60 MB. Beyond it, what was not looked at for longest is let go."""

MAX_RUNS_KEPT = 500
"""Timelines: small runs count too."""


class Look(NamedTuple):
    """A run as it is drawn now, up to its ``turn``. ``whole`` is False if it has more turns than are drawn.

    ``timeline`` is shared with others who look at the run, and may have come further meanwhile.
    """

    timeline: Timeline
    picture: Picture
    turn: int
    whole: bool


class _Kept:
    def __init__(self) -> None:
        self.timeline = Timeline()
        self.lock = asyncio.Lock()
        self.whole = True


class Timelines:
    """Of one process. Of one event loop; folding and drawing run in threads, one at a time for each run.

    A run's turns never change, and another run has another id, so what was folded stays true.
    """

    def __init__(self, reader: AsyncReader) -> None:
        """Read histories by ``reader``."""
        self._reader = reader
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def look(
        self, workflow_id: str, run_id: str, now_ms: int, *, reader: AsyncReader | None = None
    ) -> Look:
        """A run as it stands; ``reader`` waits for a bookmark, say.

        Raises:
            WorkflowNotFound: there is no such run.
            Unavailable: its partition is not shown now.
        """
        while True:
            kept = self._kept.setdefault(run_id, _Kept())
            self._kept.move_to_end(run_id)
            async with kept.lock:
                if self._kept.get(run_id) is kept:
                    return await self._look(kept, workflow_id, run_id, now_ms, reader or self._reader)

    async def _look(
        self, kept: _Kept, workflow_id: str, run_id: str, now_ms: int, reader: AsyncReader
    ) -> Look:
        try:
            await self._read_on(kept, workflow_id, run_id, reader)
            picture = await asyncio.to_thread(draw, kept.timeline, now_ms)
            turn = kept.timeline.turn
        except BaseException:  # whoever asked may be gone while a thread still folds
            self._kept.pop(run_id, None)
            raise
        self._let_go()
        return Look(kept.timeline, picture, turn, kept.whole)

    async def _read_on(self, kept: _Kept, workflow_id: str, run_id: str, reader: AsyncReader) -> None:
        timeline = kept.timeline
        while timeline.turn < MAX_TURNS_DRAWN:
            page = await reader.history(workflow_id, run_id, after_turn=timeline.turn, limit=READ_TURNS)
            await asyncio.to_thread(timeline.extend, page.turns)
            if len(page.turns) < READ_TURNS:
                return
        kept.whole = False

    def _let_go(self) -> None:
        bars = sum(len(one.timeline.activities) + len(one.timeline.timers) for one in self._kept.values())
        while len(self._kept) > 1 and (bars > MAX_BARS_KEPT or len(self._kept) > MAX_RUNS_KEPT):
            _, gone = self._kept.popitem(last=False)
            bars -= len(gone.timeline.activities) + len(gone.timeline.timers)
