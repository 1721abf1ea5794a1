"""What a client reads: lists, descriptions and histories, from a view."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import History, RunDescription, RunPage


@runtime_checkable
class AsyncReader(Protocol):
    """The asyncio side of ``orchestrator.view.reader.Reader``, with the same contract."""

    async def list_runs(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str = "",
        id_prefix: str = "",
        limit: int = 100,
        page: str = "",
    ) -> RunPage:
        """Runs that match all given filters, newest start first. ``page`` continues an earlier list."""

    async def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """One run as it stands."""

    async def history(
        self, workflow_id: str, run_id: str = "", *, after_turn: int = 0, limit: int = 10_000
    ) -> History:
        """The turns of one run after ``after_turn``, at most ``limit``."""
