"""Deadlines of one partition, in time order: the next minute in a heap, the rest in the store."""

from __future__ import annotations

import heapq

from orchestrator.engine.state import Changes, Deadline
from orchestrator.store.partition_store import DueDeadline, PartitionStore

HORIZON_MS = 60_000
"""How far ahead the heap looks; further deadlines stay on disk and cost no memory."""

LOAD_LIMIT = 10_000
"""Deadlines loaded from the store at a time, so that a step stays short."""

_Key = tuple[str, Deadline]


class Deadlines:
    """Committed deadlines. A popped one is checked against the run's state by the engine.

    An entry whose deadline was cleared stays in the heap as garbage until it is popped, or until
    garbage outweighs what lives.
    """

    def __init__(self, store: PartitionStore) -> None:
        """Begin with an empty heap: everything is still on disk."""
        self._store = store
        self._heap: list[tuple[int, str, Deadline, str]] = []
        self._live: set[_Key] = set()
        self._horizon_ms = 0
        self._resume = b""

    def commit(self, workflow_id: str, run_id: str, changes: Changes) -> None:
        """Take over what an applied turn changed."""
        for deadline in changes.deadlines_set:
            if deadline.at_ms <= self._horizon_ms:
                self._push(workflow_id, run_id, deadline)
        for deadline in changes.deadlines_cleared:
            self._live.discard((run_id, deadline))
        if len(self._heap) > 2 * len(self._live) + 1_000:
            self._heap = [entry for entry in self._heap if (entry[1], entry[2]) in self._live]
            heapq.heapify(self._heap)

    def has_due(self, now_ms: int) -> bool:
        """Whether :meth:`due` may have something to take, or to load."""
        if self._horizon_ms < now_ms + HORIZON_MS // 2:
            return True
        return bool(self._heap) and self._heap[0][0] <= now_ms

    def due(self, now_ms: int, limit: int) -> list[DueDeadline]:
        """Take up to ``limit`` deadlines that have come, in time order."""
        self._look_ahead(now_ms)
        found: list[DueDeadline] = []
        while self._heap and self._heap[0][0] <= now_ms and len(found) < limit:
            _, run_id, deadline, workflow_id = heapq.heappop(self._heap)
            if (run_id, deadline) in self._live:
                self._live.discard((run_id, deadline))
                found.append(DueDeadline(workflow_id, run_id, deadline))
        return found

    def next_ms(self) -> int | None:
        """When to look again; None if the heap is empty (look again within the horizon)."""
        return self._heap[0][0] if self._heap else None

    def _look_ahead(self, now_ms: int) -> None:
        if self._horizon_ms >= now_ms + HORIZON_MS // 2:
            return
        until_ms = now_ms + HORIZON_MS
        for loaded, (key, entry) in enumerate(self._store.deadlines(self._resume, until_ms), start=1):
            self._push(entry.workflow_id, entry.run_id, entry.deadline)
            self._resume = key + b"\0"
            if loaded == LOAD_LIMIT:
                self._horizon_ms = entry.deadline.at_ms
                return
        self._horizon_ms = until_ms
        self._resume = self._store.deadline_key(until_ms)

    def _push(self, workflow_id: str, run_id: str, deadline: Deadline) -> None:
        if (run_id, deadline) not in self._live:
            self._live.add((run_id, deadline))
            heapq.heappush(self._heap, (deadline.at_ms, run_id, deadline, workflow_id))
