"""Task queues as the beats of coordinators and workers tell of them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.protocol.views import CoordinatorSeen, Queues, QueueSeen, WorkerSeen

ALIVE_MS = 10_000
"""A worker beats once per second, and is taken for dead after six beats of a coordinator without one."""


def queues_of(workers: Iterable[WorkerSeen], coordinators: Iterable[CoordinatorSeen]) -> Queues:
    """What waits in all coordinators, and who serves it."""
    serving = [seen.beat for seen in workers if _serves(seen)]
    backlogs = [backlog for seen in coordinators for backlog in seen.beat.backlogs]
    names = {backlog.task_queue for backlog in backlogs}
    names.update(*(beat.task_queues for beat in serving))
    found = []
    for name in sorted(names):
        waiting = [backlog for backlog in backlogs if backlog.task_queue == name and backlog.waiting]
        mine = [beat for beat in serving if name in beat.task_queues]
        found.append(
            QueueSeen(
                task_queue=name,
                waiting=sum(backlog.waiting for backlog in waiting),
                oldest_time_ms=min((backlog.oldest_time_ms for backlog in waiting), default=None),
                workers=len(mine),
                slots=sum(beat.slots for beat in mine),
                running=sum(beat.running for beat in mine),
            )
        )
    return Queues(queues=tuple(found))


def served(workers: Iterable[WorkerSeen]) -> frozenset[str]:
    """The queues that some worker takes new work from."""
    return frozenset(queue for seen in workers if _serves(seen) for queue in seen.beat.task_queues)


def _serves(seen: WorkerSeen) -> bool:
    return not seen.beat.draining and seen.silent_ms <= ALIVE_MS
