"""A view on the simulated log, stepped by hand, and histories for it to follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from orchestrator.codec import avro
from orchestrator.errors import WorkflowNotFound
from orchestrator.log.port import Record
from orchestrator.log.simulated import Faults, SimulatedCluster
from orchestrator.log.topics import HISTORY
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.records import HistoryRecord, history_key
from orchestrator.view.materializer import Materializer
from orchestrator.view.store_reader import StoreReader
from tests.unit.store.scribe import Scribe

START_MS = 1_700_000_000_000
PARTITIONS = 2


def ids_of(partition: int) -> list[str]:
    """Workflow ids that live on a partition."""
    return [f"wf-{n}" for n in range(200) if partition_of(f"wf-{n}", PARTITIONS) == partition][:7]


class Follow:
    """The log, its clock, and one view of it."""

    def __init__(self, folder: Path, *, faults: Faults | None = None, seed: int = 1) -> None:
        self.now_ms = START_MS
        self.folder = folder
        self.cluster = SimulatedCluster(
            Random(seed), lambda: self.now_ms, partitions=PARTITIONS, faults=faults or Faults.none()
        )
        self.view = self.open()

    def open(self, folder: Path | None = None, **options: Any) -> Materializer:
        """A view in a folder, or a new one in this one's."""
        return Materializer(
            self.cluster.member("view"),
            folder or self.folder,
            **{"log_id": "log", "now_ms": lambda: self.now_ms} | options,
        )

    def reopen(self, **options: Any) -> None:
        """The view's process ends and begins anew."""
        self.view.close()
        self.view = self.open(**options)

    def land(self, topic: str, value: bytes | None, *, key: bytes = b"k", partition: int = 0) -> int:
        """Somebody writes a record; returns its offset."""
        return self.cluster.land(Record(topic, partition, -1, 0, key, value, {}))

    def write(self, *records: HistoryRecord, partition: int = 0) -> None:
        """Somebody writes history."""
        for record in records:
            self.land(HISTORY, avro.encode(record), key=history_key(record), partition=partition)

    def copy_of(self, scribe: Scribe, partition: int, *, first: int = 0, last: int | None = None) -> None:
        """Write a part of what a scribe has written."""
        for written in scribe.log[first:last]:
            self.land(HISTORY, written.value, key=written.key, partition=partition)

    def until(self, holds: Callable[[], bool], view: Materializer | None = None) -> None:
        """Step until something holds."""
        for _ in range(500):
            if holds():
                return
            self.now_ms += 10
            (view or self.view).step()
        raise AssertionError("it does not come to that")

    def settle(self, view: Materializer | None = None) -> Materializer:
        """Step until all is read; returns the view."""
        found = view or self.view

        def read() -> bool:
            ends = [self.cluster.partition(HISTORY, number).end for number in range(PARTITIONS)]
            return found.ready and [one.offset for one in found.status().partitions] == ends

        found.step()
        self.until(read, found)
        found.step()
        return found


def answers(view: Materializer) -> dict[str, Any]:
    """Everything that a view has to say of runs."""
    reader = StoreReader(view.stores, catch_up=view.catch_up)
    rows = reader.list_runs(limit=10_000).rows
    found: dict[str, Any] = {"rows": rows}
    for row in rows:
        found[row.run_id] = (
            reader.describe(row.workflow_id, row.run_id),
            reader.history(row.workflow_id, row.run_id),
        )
        try:
            found[row.workflow_id] = reader.describe(row.workflow_id).row
        except WorkflowNotFound:
            found[row.workflow_id] = None
    return found
