"""Stores that are filled turn by turn, as a view fills them, and a reader of them."""

from __future__ import annotations

from pathlib import Path

from orchestrator.protocol import events as e
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.values import Failure, FailureKind, Payload
from orchestrator.store.fold import HistoryFold
from orchestrator.store.partition_store import PartitionStore
from orchestrator.view.store_reader import StoreReader

PARTITIONS = 3
NOW_MS = 1_000_000
ROOT = Failure(kind=FailureKind.APPLICATION, message="sanctions hit")
FAILED = Failure(kind=FailureKind.ACTIVITY, message="activity 'check' failed", cause=ROOT)


class Shelf:
    """The stores of all partitions, and a reader of them."""

    def __init__(self, folder: Path) -> None:
        self.stores: list[PartitionStore | None] = [
            PartitionStore(folder / str(number), log_id="log", indexed=True) for number in range(PARTITIONS)
        ]
        self.folds = [HistoryFold(store) for store in self.stores if store is not None]
        self.served: frozenset[str] | None = None
        self.reader = StoreReader(lambda: self.stores, served=lambda: self.served, now_ms=lambda: NOW_MS)
        self.runs = 0

    def run(
        self, workflow_id: str, *turns: tuple[e.Event, ...], start_ms: int = 0, kind: str = "Order"
    ) -> str:
        """A run of these turns, after its start."""
        self.runs += 1
        run_id = f"{self.runs:032x}"
        fold = self.folds[partition_of(workflow_id, PARTITIONS)]
        next_event = 1
        started = e.WorkflowStarted(workflow_type=kind, input=(Payload(data=b"1"),))
        for number, events in enumerate([(started,), *turns], start=1):
            turn = Turn(
                epoch=1,
                seq=number,
                marks=Marks(),
                sent_through=-1,
                time_ms=1_000 + (start_ms or self.runs) + number - 1,
                workflow_id=workflow_id,
                run_id=run_id,
                turn=number,
                first_event_id=next_event,
                activation=Activation.DONE,
                events=events,
            )
            next_event += len(events)
            assert fold.add(turn, fold.next_offset) == ""
            fold.flush()
        return run_id

    def close(self) -> None:
        for store in self.stores:
            if store is not None:
                store.close()
