"""The coordinator's side of business events: from the rows of the store to the publisher of a partition."""

from __future__ import annotations

import logging
from collections import deque
from typing import NamedTuple

from orchestrator.coordinator.publisher import EventPublisher, Item, Progress
from orchestrator.coordinator.runtime import Loop, Runtime
from orchestrator.engine import outbox
from orchestrator.log.port import Log
from orchestrator.store.partition_store import PartitionStore, Unpublished

log = logging.getLogger(__name__)

FEED_TURNS = 200
"""Read of the store in one step of the coordinator: some milliseconds."""

MAX_OFFSET = 2**63 - 1
"""Above every offset of a log."""


class _Row(NamedTuple):
    offset: int
    workflow_id: str
    run_id: str


class Publishing:
    """The coordinator's side: feeds the publisher of one partition under one claim from the store.

    Nothing is started before there is something to publish.
    """

    def __init__(self, partition: int, store: PartitionStore, log_: Log, runtime: Runtime) -> None:
        """The claim was read back: the store has all that is to be published."""
        self.held_back: dict[str, str] = {}
        """Runs that are held back, and why."""
        self._partition, self._store, self._log, self._runtime = partition, store, log_, runtime
        self._publisher: EventPublisher | None = None
        self._loop: Loop | None = None
        self._news = True
        self._fed = -1
        self._rows: deque[_Row] = deque()
        self._kept: dict[str, deque[_Row]] = {}
        self._seen: Progress | None = None

    def note(self) -> None:
        """The store may have more to publish."""
        self._news = True

    @property
    def idle(self) -> bool:
        """Whether all that the store has was published, as far as is known here."""
        return not (self._news or self._rows or self._kept)

    def tick(self) -> list[str]:
        """Feed, and take notice of what was published.

        Returns the workflow ids of runs that are held back from now on, or no longer.
        """
        changed: list[str] = []
        if self._news:
            self._feed()
        if self._publisher is not None:
            progress = self._publisher.progress
            if progress is not self._seen or (self._rows and self._rows[0].offset <= progress.through):
                self._seen = progress
                changed = self._settle(progress)
        return changed

    def end(self, wait_s: float = 0.0) -> None:
        """The claim is gone. What is being published now may still land, and counts."""
        if self._loop is not None:
            self._loop.end(wait_s)

    def _feed(self) -> None:
        for fed, row in enumerate(self._store.unpublished(self._fed)):
            publisher = self._publisher or self._start()
            if fed == FEED_TURNS or not publisher.has_room:
                if fed == FEED_TURNS:
                    self._log.wake()
                break
            self._fed = row.offset
            item = self._item(row)
            publisher.give(item)
            self._rows.append(_Row(row.offset, item.workflow_id, row.run_id))
        else:
            self._news = False
            if self._publisher is not None:
                self._publisher.caught_up = True
        if self._loop is not None:
            self._loop.wake()

    def _item(self, row: Unpublished) -> Item:
        turn = self._store.turn(row.run_id, row.turn)
        if turn is None:  # a run whose history has a gap was dropped
            log.error("partition %d: turn %d of run %s is gone", self._partition, row.turn, row.run_id)
            return Item(row.offset, "", row.run_id, (), 0)
        records = tuple(outbox.publications(turn, row.workflow_type))
        size = sum(record.size_bytes for record in records)
        return Item(row.offset, turn.workflow_id, row.run_id, records, size)

    def _start(self) -> EventPublisher:
        self._publisher = EventPublisher(
            self._partition,
            lambda: self._log.publisher(self._partition),
            self._log.refusal_of_topic,
            self._runtime,
            log_id=self._store.checkpoint.log_id,
            on_room=self._log.wake,
        )
        self._loop = self._runtime.repeat(f"publisher-{self._partition}", self._publisher)
        return self._publisher

    def _settle(self, progress: Progress) -> list[str]:
        """Delete the rows of what was published; keep those of what is held back."""
        done: list[int] = []
        while self._rows and self._rows[0].offset <= progress.through:
            row = self._rows.popleft()
            self._kept.setdefault(row.run_id, deque()).append(row)
        names = {}
        for run_id, rows in list(self._kept.items()):
            names[run_id] = rows[-1].workflow_id
            held_from = progress.held_back[run_id][0] if run_id in progress.held_back else MAX_OFFSET
            while rows and rows[0].offset < held_from:
                done.append(rows.popleft().offset)
            if not rows:
                del self._kept[run_id]
        self._store.forget_unpublished(done)
        before, self.held_back = (
            self.held_back,
            {run_id: progress.held_back[run_id][1] for run_id in self._kept},
        )
        return [names[run_id] for run_id in before.keys() ^ self.held_back.keys()]
