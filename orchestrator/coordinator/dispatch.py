"""Directed dispatch: which worker gets which activity, and which worker is gone.

A worker start is an *incarnation* with slots and an inbox. Coordinators know all incarnations from
their beats and share them: a coordinator uses ``slots // coordinators`` of each (the remainder rotates),
and what is shown idle beyond that once a beat covers its last dispatch. What finds no slot waits in a
backlog per queue, by priority, then by age.

An incarnation is dead when a coordinator has read ``LOST_AFTER_BEATS`` of *its own* beats since that
incarnation's last: records, not seconds, so a broker's outage kills nobody.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from orchestrator.protocol.tasks import Beat, CoordinatorBeat, QueueBacklog, WorkerBeat

LOST_AFTER_BEATS = 6
"""A worker beats once per second, so this is about six seconds of silence."""

DEFAULT_PRIORITY = 3
"""Temporal's: priorities are 1 to 5, lower first."""


class ActivityRef(NamedTuple):
    """An open activity, wherever it is."""

    partition: int
    workflow_id: str
    run_id: str
    activity_id: int


class _Worker(msgspec.Struct):
    """What is known of an incarnation. ``open`` are the attempts that this coordinator gave it."""

    task_queues: tuple[str, ...] = ()
    slots: int = 0
    running: int = 0
    inbox: int = 0
    inbox_offset: int = 0
    last_dispatch_offset: int = -1
    borrowed: int = 0
    silent_beats: int = 0
    draining: bool = False
    seen: bool = False
    lost: bool = False
    refused: bool = False
    open: set[ActivityRef] = set()


class Dispatcher:
    """All workers and all waiting activities of one coordinator, over all its partitions."""

    def __init__(self, coordinator: str) -> None:
        """``coordinator`` is this process's incarnation, as its beats name it."""
        self._coordinator = coordinator
        self._workers: dict[str, _Worker] = {}
        self._peers: dict[str, int] = {coordinator: 0}
        self._peer_types: dict[str, tuple[str, ...]] = {}
        self._rotation = 0
        self._own_beats = 0
        self._by_queue: dict[str, list[str]] = {}
        self._backlog: dict[str, list[tuple[int, int, int, ActivityRef]]] = {}
        self._waiting: dict[ActivityRef, int] = {}
        self._order = 0
        self._garbage = 0

    # ---------------------------------------------------------------------------------------- beats

    def on_beat(self, beat: Beat) -> list[str]:
        """Take note of a beat, in the order of the topic; returns incarnations that are lost by it."""
        if isinstance(beat, WorkerBeat):
            self._on_worker(beat)
            return [beat.worker] if beat.stopped else []
        if beat.coordinator != self._coordinator:
            if beat.stopped:
                self._peers.pop(beat.coordinator, None)
            else:
                self._peers[beat.coordinator] = 0
                self._peer_types[beat.coordinator] = beat.workflow_types
            return []
        return self._on_own_beat(beat)

    def _on_worker(self, beat: WorkerBeat) -> None:
        worker = self._workers.setdefault(beat.worker, _Worker())
        if beat.stopped or worker.lost:
            worker.lost = worker.draining = True
        for queue in set(worker.task_queues).difference(beat.task_queues):
            self._by_queue[queue].remove(beat.worker)
        for queue in beat.task_queues:
            known = self._by_queue.setdefault(queue, [])
            if beat.worker not in known:
                known.append(beat.worker)
        worker.task_queues, worker.slots, worker.running = beat.task_queues, beat.slots, beat.running
        worker.inbox, worker.inbox_offset = beat.inbox, beat.inbox_offset
        worker.draining = worker.draining or beat.draining
        if beat.regular:
            worker.silent_beats = 0
        worker.seen, worker.refused = True, False
        if worker.inbox_offset > worker.last_dispatch_offset:
            worker.borrowed = 0

    def _on_own_beat(self, beat: CoordinatorBeat) -> list[str]:
        self._rotation = beat.number
        self._own_beats += 1
        for peer in [peer for peer, silent in self._peers.items() if silent >= LOST_AFTER_BEATS]:
            del self._peers[peer]
        for peer in self._peers:
            self._peers[peer] += 1
        self._peers[self._coordinator] = 0
        lost = []
        for name, worker in list(self._workers.items()):
            worker.silent_beats += 1
            if worker.silent_beats >= LOST_AFTER_BEATS and not worker.lost:
                worker.lost = worker.draining = True
                lost.append(name)
            elif worker.lost and not worker.open:
                self._remove(name, worker)
        return lost

    def _remove(self, name: str, worker: _Worker) -> None:
        del self._workers[name]
        for queue in worker.task_queues:
            if name in self._by_queue.get(queue, ()):
                self._by_queue[queue].remove(name)

    def is_gone(self, coordinator: str) -> bool:
        """Whether a coordinator has been silent for as many beats as this one has made, six at least."""
        return coordinator not in self._peers and self._own_beats >= LOST_AFTER_BEATS

    def peer_knows(self, workflow_type: str) -> bool:
        """Whether another living coordinator can run workflows of a type."""
        return any(
            workflow_type in self._peer_types.get(peer, ())
            for peer in self._peers
            if peer != self._coordinator
        )

    def workers_to_lose(self, partition: int, *, unseen: bool) -> list[str]:
        """Incarnations that hold attempts of a partition and are lost (or, if asked for, never beat)."""
        return [
            name
            for name, worker in self._workers.items()
            if (worker.lost or (unseen and not worker.seen))
            and any(ref.partition == partition for ref in worker.open)
        ]

    def lose(self, worker: str) -> None:
        """Somebody knows that a worker is lost, who heard its last beats: it gets nothing more."""
        found = self._workers.get(worker)
        if found is not None:
            found.lost = found.draining = True

    def open_on(self, worker: str, partition: int) -> list[ActivityRef]:
        """Attempts of a partition that are with a worker, in a fixed order."""
        found = self._workers.get(worker)
        return sorted(ref for ref in found.open if ref.partition == partition) if found else []

    # ---------------------------------------------------------------------------------------- slots

    def take(self, ref: ActivityRef, task_queue: str) -> tuple[str, int] | None:
        """A free slot for an activity that is being scheduled, unless others of its queue wait already."""
        return None if self._backlog.get(task_queue) else self._offer(ref, task_queue)

    def _offer(self, ref: ActivityRef, task_queue: str) -> tuple[str, int] | None:
        names = self._by_queue.get(task_queue)
        if not names:
            return None
        for place, name in enumerate(names):
            worker = self._workers[name]
            if self._has_slot(name, worker):
                worker.open.add(ref)
                names.append(names.pop(place))
                return name, worker.inbox
        return None

    def _has_slot(self, name: str, worker: _Worker) -> bool:
        if worker.draining or worker.refused or len(worker.open) >= worker.slots:
            return False
        coordinators = sorted(self._peers)
        share, remainder = divmod(worker.slots, len(coordinators))
        if (coordinators.index(self._coordinator) + self._rotation) % len(coordinators) < remainder:
            share += 1
        if len(worker.open) < share:
            return True
        if worker.inbox_offset <= worker.last_dispatch_offset:
            return False
        if worker.running + worker.borrowed < worker.slots:
            worker.borrowed += 1
            return True
        return False

    def taken(self, ref: ActivityRef, worker: str) -> None:
        """An attempt is with a worker (known from history after a restore)."""
        self._workers.setdefault(worker, _Worker()).open.add(ref)

    def refused(self, worker: str) -> None:
        """A worker gave a delivery back: it gets no other before it has beaten again."""
        found = self._workers.get(worker)
        if found is not None:
            found.refused = True

    def freed(self, ref: ActivityRef, worker: str) -> None:
        """An attempt is no longer with a worker."""
        found = self._workers.get(worker)
        if found is not None:
            found.open.discard(ref)

    def dispatched(self, worker: str, offset: int) -> None:
        """A task for a worker was acknowledged at this offset of its inbox."""
        found = self._workers.get(worker)
        if found is not None:
            found.last_dispatch_offset = max(found.last_dispatch_offset, offset)

    # -------------------------------------------------------------------------------------- backlog

    def wait(self, ref: ActivityRef, task_queue: str, priority: int, since_ms: int) -> None:
        """An activity needs a worker."""
        if ref in self._waiting:
            return
        self._order += 1
        self._waiting[ref] = self._order
        entry = (priority or DEFAULT_PRIORITY, since_ms, self._order, ref)
        heapq.heappush(self._backlog.setdefault(task_queue, []), entry)

    def gone(self, ref: ActivityRef) -> None:
        """An activity no longer needs a worker; its place in the backlog is garbage."""
        if self._waiting.pop(ref, None) is not None:
            self._garbage += 1
            if self._garbage > len(self._waiting) + 1_000:
                self._sweep()

    def _sweep(self) -> None:
        """Drop what is garbage in the backlogs."""
        self._garbage = 0
        for queue, heap in list(self._backlog.items()):
            heap[:] = [entry for entry in heap if self._waiting.get(entry[3]) == entry[2]]
            heapq.heapify(heap)
            if not heap:
                del self._backlog[queue]

    @property
    def has_backlog(self) -> bool:
        """Whether anything waits for a worker."""
        return bool(self._waiting)

    def assign(self, partitions: Iterable[int], limit: int) -> list[tuple[ActivityRef, str, int]]:
        """Match what waits with free slots: (activity, worker, inbox). Only of the given partitions."""
        allowed = set(partitions)
        found: list[tuple[ActivityRef, str, int]] = []
        for queue, heap in list(self._backlog.items()):
            held = []
            while heap and len(found) < limit:
                entry = heap[0]
                ref = entry[3]
                if self._waiting.get(ref) != entry[2]:
                    heapq.heappop(heap)
                elif ref.partition not in allowed:
                    held.append(heapq.heappop(heap))
                elif (offer := self._offer(ref, queue)) is not None:
                    heapq.heappop(heap)
                    del self._waiting[ref]
                    found.append((ref, *offer))
                else:
                    break
            for entry in held:
                heapq.heappush(heap, entry)
            if not heap:
                del self._backlog[queue]
        return found

    def drop_partition(self, partition: int) -> None:
        """Forget everything of a partition: what it had reserved is free again."""
        for worker in self._workers.values():
            worker.open = {ref for ref in worker.open if ref.partition != partition}
        for ref in [ref for ref in self._waiting if ref.partition == partition]:
            del self._waiting[ref]
        self._sweep()

    def backlogs(self) -> tuple[QueueBacklog, ...]:
        """How much waits per queue, for this coordinator's beat."""
        found = []
        for queue, heap in self._backlog.items():
            since = [entry[1] for entry in heap if self._waiting.get(entry[3]) == entry[2]]
            if since:
                found.append(QueueBacklog(task_queue=queue, waiting=len(since), oldest_time_ms=min(since)))
        return tuple(found)
