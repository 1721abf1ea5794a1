"""What does not get on: blocked runs, and activities that fail again and again or find no worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import chain
from operator import itemgetter
from typing import NamedTuple

from orchestrator.engine.state import ActivityPhase, waits_since_ms
from orchestrator.errors import UsageError
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import StuckPage, StuckReason, StuckRun
from orchestrator.store import keys
from orchestrator.store.listing import Listing, Span
from orchestrator.store.summaries import Pending, Summary
from orchestrator.view.lists import MAX_ROWS_EXAMINED, in_order
from orchestrator.view.pages import read_token, token


class Patience(NamedTuple):
    """From when on something is taken for stuck.

    An activity at its ``attempts``-th attempt, or that has waited for a worker for ``waiting_ms`` at
    ``now_ms``, or does in a queue that is not ``served`` (None: nobody knows which are).
    """

    attempts: int
    waiting_ms: int
    served: frozenset[str] | None
    now_ms: int


def stuck(listings: Sequence[Listing], patience: Patience, limit: int, page: str) -> StuckPage:
    """A page of what is stuck. Raises UsageError: no such list has given the token."""
    after = read_token(page)
    rows: list[StuckRun] = []
    for examined, (key, row) in enumerate(_candidates(listings, patience, after), start=1):
        if row is not None:
            rows.append(row)
        if len(rows) == limit or examined == MAX_ROWS_EXAMINED:
            return StuckPage(rows=tuple(rows), next_page=token(key))
    return StuckPage(rows=tuple(rows))


_BLOCKED = keys.by_status(WorkflowStatus.BLOCKED)
"""Begins the resume key of a blocked run; a place follows."""


def _candidates(
    listings: Sequence[Listing], patience: Patience, after: bytes
) -> Iterator[tuple[bytes, StuckRun | None]]:
    """What may be stuck behind a resume key: a blocked run's in its index, or an activity's."""
    if after.startswith(keys.PENDING):
        return _activities(listings, patience, after)
    if after and not after.startswith(_BLOCKED):
        raise UsageError("the page token is not one that a list of what is stuck has given")
    return chain(_blocked(listings, after[len(_BLOCKED) :]), _activities(listings, patience, b""))


def _blocked(listings: Sequence[Listing], after: bytes) -> Iterator[tuple[bytes, StuckRun | None]]:
    for place, listing, value in in_order(listings, lambda listing: [_BLOCKED], Span(after=after)):
        run = listing.run_at(place, value)
        there = run is not None and run.status is WorkflowStatus.BLOCKED
        yield _BLOCKED + place, _blocked_run(run) if there and run is not None else None


def _activities(
    listings: Sequence[Listing], patience: Patience, after: bytes
) -> Iterator[tuple[bytes, StuckRun | None]]:
    for key, pending in merge(*(listing.pending(after) for listing in listings), key=itemgetter(0)):
        waits_since = waits_since_ms(
            pending.phase, pending.scheduled_time_ms, pending.retry_time_ms, patience.now_ms
        )
        reasons = tuple(_reasons(pending, waits_since, patience))
        yield key, _stuck_activity(pending, waits_since, reasons) if reasons else None


def _reasons(pending: Pending, waits_since: int | None, patience: Patience) -> Iterator[StuckReason]:
    if pending.attempt >= patience.attempts:
        yield StuckReason.RETRYING
    if waits_since is not None:
        if patience.served is not None and pending.task_queue not in patience.served:
            yield StuckReason.NO_WORKER
        if waits_since < patience.now_ms - patience.waiting_ms:
            yield StuckReason.WAITING


def _blocked_run(summary: Summary) -> StuckRun:
    return StuckRun(
        workflow_id=summary.workflow_id,
        run_id=summary.run_id,
        workflow_type=summary.workflow_type,
        reasons=(StuckReason.BLOCKED,),
        since_time_ms=summary.time_ms,
        last_failure=summary.last_failure,
    )


def _stuck_activity(pending: Pending, waits_since: int | None, reasons: tuple[StuckReason, ...]) -> StuckRun:
    backs_off = pending.phase is ActivityPhase.BACKOFF and waits_since is None
    return StuckRun(
        workflow_id=pending.workflow_id,
        run_id=pending.run_id,
        workflow_type=pending.workflow_type,
        reasons=reasons,
        since_time_ms=pending.scheduled_time_ms if waits_since is None else waits_since,
        activity_id=pending.activity_id,
        activity_type=pending.activity_type,
        task_queue=pending.task_queue,
        attempt=pending.attempt,
        maximum_attempts=pending.maximum_attempts,
        next_retry_time_ms=pending.retry_time_ms if backs_off else None,
        worker=pending.worker,
        last_failure=pending.last_failure,
    )
