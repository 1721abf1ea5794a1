"""What HTTP and CLI ask of the read side."""

from __future__ import annotations

from typing import Protocol

from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import DeadLetterPage, History, RunDescription, RunPage, ViewStatus


class Reader(Protocol):
    """Answers from what is committed. All methods may be called from any thread.

    ``run_id`` "" means the id's current (or else last) run. Unknown ids raise ``WorkflowNotFound``.
    """

    def list_runs(
        self,
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str = "",
        id_prefix: str = "",
        limit: int = 100,
        page: str = "",
    ) -> RunPage:
        """Runs that match all given filters, newest start first. ``page`` continues an earlier list."""

    def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """One run as it stands."""

    def history(
        self, workflow_id: str, run_id: str = "", *, after_turn: int = 0, limit: int = 10_000
    ) -> History:
        """The turns of one run after ``after_turn``, at most ``limit``."""


class Overview(Protocol):
    """What a view says of itself and of those whose beats it hears. May be called from any thread."""

    def status(self) -> ViewStatus:
        """How this view stands."""

    def dead_letters(self, limit: int = 100, page: str = "") -> DeadLetterPage:
        """What nobody could use, newest first; ``page`` continues an earlier list."""
