"""The read side on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from orchestrator.protocol.views import (
    STUCK_ATTEMPTS,
    STUCK_WAITING_MS,
    FailureGroups,
    History,
    MinuteCounts,
    RunCounts,
    RunDescription,
    RunPage,
    StuckPage,
)
from orchestrator.view.reader import Reader

P = ParamSpec("P")
T = TypeVar("T")


class ThreadedReader:
    """The read side for asyncio: reads run in threads, so that a long list stalls nobody."""

    def __init__(self, reader: Reader, bookmark: str = "") -> None:
        """Read through ``reader``, whose methods may be called from any thread, behind ``bookmark``."""
        self._reader = reader
        self._bookmark = bookmark

    def after(self, bookmark: str) -> ThreadedReader:
        """As ``AsyncReader.after``."""
        return ThreadedReader(self._reader, bookmark)

    def positions(self) -> tuple[int, ...]:
        """As ``Reader.positions``."""
        return self._reader.positions()

    async def list_runs(self, query: str = "", *, limit: int = 100, page: str = "") -> RunPage:
        """As ``Reader.list_runs``."""
        return await self._read(Reader.list_runs, query, limit=limit, page=page)

    async def count_runs(self, query: str = "") -> RunCounts:
        """As ``Reader.count_runs``."""
        return await self._read(Reader.count_runs, query)

    async def minutes(self) -> MinuteCounts:
        """As ``Reader.minutes``."""
        return await self._read(Reader.minutes)

    async def failures(self, *, limit: int = 100) -> FailureGroups:
        """As ``Reader.failures``."""
        return await self._read(Reader.failures, limit=limit)

    async def stuck(
        self,
        *,
        attempts: int = STUCK_ATTEMPTS,
        waiting_ms: int = STUCK_WAITING_MS,
        limit: int = 100,
        page: str = "",
    ) -> StuckPage:
        """As ``Reader.stuck``."""
        return await self._read(
            Reader.stuck, attempts=attempts, waiting_ms=waiting_ms, limit=limit, page=page
        )

    async def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """As ``Reader.describe``."""
        return await self._read(Reader.describe, workflow_id, run_id)

    async def history(
        self,
        workflow_id: str,
        run_id: str = "",
        *,
        after_turn: int = 0,
        before_turn: int = 0,
        newest: bool = False,
        limit: int = 10_000,
    ) -> History:
        """As ``Reader.history``."""
        return await self._read(
            Reader.history,
            workflow_id,
            run_id,
            after_turn=after_turn,
            before_turn=before_turn,
            newest=newest,
            limit=limit,
        )

    async def _read(
        self, method: Callable[Concatenate[Reader, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        def read() -> T:
            if self._bookmark:
                self._reader.wait_for(self._bookmark)
            bound: Callable[P, T] = getattr(self._reader, method.__name__)
            return bound(*args, **kwargs)

        return await asyncio.to_thread(read)
