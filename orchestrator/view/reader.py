"""What HTTP and CLI ask of the read side."""

from __future__ import annotations

from typing import Protocol

from orchestrator.protocol.views import (
    STUCK_ATTEMPTS,
    STUCK_WAITING_MS,
    DeadLetterPage,
    FailureGroups,
    History,
    MinuteCounts,
    Queues,
    RunCounts,
    RunDescription,
    RunPage,
    StuckPage,
    ViewStatus,
)


class Reader(Protocol):
    """Answers from what is committed. All methods may be called from any thread.

    ``run_id`` "" means the id's current (or else last) run. Unknown ids raise ``WorkflowNotFound``, and what
    is no query or page token ``UsageError``.
    """

    def wait_for(self, bookmark: str) -> None:
        """Return when everything up to a bookmark is shown (see ``protocol.bookmarks``).

        Raises:
            UsageError: it is not a bookmark of this log.
            Unavailable: it takes too long.
        """

    def positions(self) -> tuple[int, ...]:
        """How far each partition of history is shown: the offset of the next record, -1 where it is not.

        It costs nothing, and changes with whatever the other methods would answer.
        """

    def list_runs(self, query: str = "", *, limit: int = 100, page: str = "") -> RunPage:
        """Runs that match a query (see ``codec.query``), newest start first.

        ``page`` continues an earlier list. A page may have few rows, or none, and be followed by others.
        """

    def count_runs(self, query: str = "") -> RunCounts:
        """How many runs match a query, by status and type."""

    def minutes(self) -> MinuteCounts:
        """How many runs started and closed in each minute of the last 24 hours."""

    def failures(self, *, limit: int = 100) -> FailureGroups:
        """Failures that are alike, those of most runs first."""

    def stuck(
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

    def describe(self, workflow_id: str, run_id: str = "") -> RunDescription:
        """One run as it stands."""

    def history(
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


class Overview(Protocol):
    """What a view says of itself and of those whose beats it hears. May be called from any thread."""

    def status(self) -> ViewStatus:
        """How this view stands."""

    def queues(self) -> Queues:
        """The task queues: what waits, and who serves them."""

    def dead_letters(self, limit: int = 100, page: str = "") -> DeadLetterPage:
        """What nobody could use, newest first; ``page`` continues an earlier list."""
