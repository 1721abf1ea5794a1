"""Task queues, from beats."""

from __future__ import annotations

from orchestrator.protocol.tasks import CoordinatorBeat, QueueBacklog, WorkerBeat
from orchestrator.protocol.views import CoordinatorSeen, QueueSeen, WorkerSeen
from orchestrator.view.queues import ALIVE_MS, queues_of, served


def worker(
    *queues: str, slots: int = 4, running: int = 1, draining: bool = False, silent_ms: int = 0
) -> WorkerSeen:
    beat = WorkerBeat(
        worker="w", identity="", task_queues=queues, slots=slots, running=running, inbox=0, inbox_offset=0,
        number=1, draining=draining,
    )  # fmt: skip
    return WorkerSeen(beat=beat, silent_ms=silent_ms)


def coordinator(*backlogs: tuple[str, int, int]) -> CoordinatorSeen:
    found = tuple(QueueBacklog(task_queue=q, waiting=n, oldest_time_ms=at) for q, n, at in backlogs)
    beat = CoordinatorBeat(coordinator="c", identity="", number=1, partitions=(), backlogs=found)
    return CoordinatorSeen(beat=beat, silent_ms=0)


def test_queues_are_the_sum_of_what_all_say() -> None:
    workers = [
        worker("a", "b"),
        worker("a", slots=2, running=2),
        worker("gone", silent_ms=ALIVE_MS + 1),
        worker("leaving", draining=True),
    ]
    coordinators = [coordinator(("a", 3, 500), ("idle", 1, 900)), coordinator(("a", 2, 400), ("b", 0, 0))]
    assert queues_of(workers, coordinators).queues == (
        QueueSeen(task_queue="a", waiting=5, oldest_time_ms=400, workers=2, slots=6, running=3),
        QueueSeen(task_queue="b", workers=1, slots=4, running=1),
        QueueSeen(task_queue="idle", waiting=1, oldest_time_ms=900),
    )
    assert served(workers) == {"a", "b"}
