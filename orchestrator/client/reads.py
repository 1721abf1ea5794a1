"""What a client reads: lists, descriptions and histories, from a view."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

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


@runtime_checkable
class AsyncReader(Protocol):
    """The asyncio side of ``orchestrator.view.reader.Reader``, with the same contract."""

    def after(self, bookmark: str) -> AsyncReader:
        """The same reads, each of which waits until everything up to a bookmark is shown.

        They raise ``Unavailable`` if that takes too long, ``UsageError`` if it is no bookmark of this log.
        """

    async def list_runs(self, query: str = "", *, limit: int = 100, page: str = "") -> RunPage:
        """Runs that match a query (see ``codec.query``), newest start first.

        ``page`` continues an earlier list. A page may have few rows, or none, and be followed by others.
        """

    async def count_runs(self, query: str = "") -> RunCounts:
        """How many runs match a query, by status and type."""

    async def minutes(self) -> MinuteCounts:
        """How many runs started and closed in each minute of the last 24 hours."""

    async def failures(self, *, limit: int = 100) -> FailureGroups:
        """Failures that are alike, those of most runs first."""

    async def stuck(
        self,
        *,
        attempts: int = STUCK_ATTEMPTS,
        waiting_ms: int = STUCK_WAITING_MS,
        limit: int = 100,
        page: str = "",
    ) -> StuckPage:
        """Blocked runs, and activities at their ``attempts``-th attempt or later, without a worker for
        ``waiting_ms``, or in a queue that no worker serves.
        """

    async def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """One run as it stands."""

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
        """The turns of one run after ``after_turn`` and before ``before_turn`` (0: to the end), in order.

        At most ``limit`` of them: the first ones, or the ``newest``.
        """
