"""What an engine or a view in another process shows, over HTTP."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar
from urllib.parse import quote

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

T = TypeVar("T")


class Ask(Protocol):
    """One request, and its answer as a struct."""

    async def __call__(
        self, method: str, path: str, answer: type[T], params: dict[str, Any] | None = None
    ) -> T:
        """Raises what the engine says, and ``Unavailable`` if it does not answer."""


class HttpReads:
    """Implements ``client.reads.AsyncReader``."""

    def __init__(self, ask: Ask, bookmark: str = "") -> None:
        """Read by ``ask``, behind ``bookmark``."""
        self._asks, self._bookmark = ask, bookmark

    def after(self, bookmark: str) -> HttpReads:
        """The same reads, each of which waits until everything up to a bookmark is shown."""
        return HttpReads(self._asks, bookmark)

    async def list_runs(self, query: str = "", *, limit: int = 100, page: str = "") -> RunPage:
        """Runs that match a query, newest start first. ``page`` continues an earlier list."""
        return await self._get("/workflows", RunPage, q=query, limit=limit, page=page)

    async def count_runs(self, query: str = "") -> RunCounts:
        """How many runs match a query, by status and type."""
        return await self._get("/workflow-counts", RunCounts, q=query)

    async def minutes(self) -> MinuteCounts:
        """How many runs started and closed in each minute of the last 24 hours."""
        return await self._get("/workflow-minutes", MinuteCounts)

    async def failures(self, *, limit: int = 100) -> FailureGroups:
        """Failures that are alike, those of most runs first."""
        return await self._get("/failures", FailureGroups, limit=limit)

    async def stuck(
        self,
        *,
        attempts: int = STUCK_ATTEMPTS,
        waiting_ms: int = STUCK_WAITING_MS,
        limit: int = 100,
        page: str = "",
    ) -> StuckPage:
        """What does not get on."""
        waiting_s = waiting_ms / 1_000
        return await self._get(
            "/stuck", StuckPage, attempts=attempts, waiting_s=waiting_s, limit=limit, page=page
        )

    async def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """One run as it stands."""
        path = f"/workflows/{quote(workflow_id, safe='')}"
        return await self._get(path, RunDescription, run_id=run_id, payloads="raw")

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
        path = f"/workflows/{quote(workflow_id, safe='')}/history"
        return await self._get(
            path,
            History,
            run_id=run_id,
            after_turn=after_turn,
            before_turn=before_turn,
            newest=str(newest).lower(),
            limit=limit,
        )

    async def _get(self, path: str, answer: type[T], **params: Any) -> T:
        given = {name: value for name, value in params.items() if value != ""}
        if self._bookmark:
            given["bookmark"] = self._bookmark
        return await self._asks("GET", path, answer, given)
