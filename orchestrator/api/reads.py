"""The read side on an event loop."""

from __future__ import annotations

import asyncio

from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import History, RunDescription, RunPage
from orchestrator.view.reader import Reader


class ThreadedReader:
    """The read side for asyncio: reads run in threads, so that a long list stalls nobody."""

    def __init__(self, reader: Reader) -> None:
        """Read through ``reader``, whose methods may be called from any thread."""
        self._reader = reader

    async def list_runs(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str = "",
        id_prefix: str = "",
        limit: int = 100,
        page: str = "",
    ) -> RunPage:
        """As ``Reader.list_runs``."""
        return await asyncio.to_thread(
            self._reader.list_runs,
            status=status,
            workflow_type=workflow_type,
            id_prefix=id_prefix,
            limit=limit,
            page=page,
        )

    async def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """As ``Reader.describe``."""
        return await asyncio.to_thread(self._reader.describe, workflow_id, run_id)

    async def history(
        self, workflow_id: str, run_id: str = "", *, after_turn: int = 0, limit: int = 10_000
    ) -> History:
        """As ``Reader.history``."""
        return await asyncio.to_thread(
            self._reader.history, workflow_id, run_id, after_turn=after_turn, limit=limit
        )
