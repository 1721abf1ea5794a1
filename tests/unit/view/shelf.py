"""Stores that are filled turn by turn, as a view fills them, and a reader of them."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass
class Told:
    """How far a run was told."""

    workflow_id: str
    start_ms: int
    turns: int = 0
    events: int = 0


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
        self._told: dict[str, Told] = {}

    def run(
        self, workflow_id: str, *turns: tuple[e.Event, ...], start_ms: int = 0, kind: str = "Order"
    ) -> str:
        """A run of these turns, after its start."""
        self.runs += 1
        run_id = f"{self.runs:032x}"
        started = e.WorkflowStarted(workflow_type=kind, input=(Payload(data=b"1"),))
        self._told[run_id] = Told(workflow_id, start_ms or self.runs)
        self.go_on(run_id, (started,), *turns)
        return run_id

    def go_on(self, run_id: str, *turns: tuple[e.Event, ...]) -> None:
        """More turns of a run."""
        told = self._told[run_id]
        fold = self.folds[partition_of(told.workflow_id, PARTITIONS)]
        for events in turns:
            turn = Turn(
                epoch=1,
                seq=told.turns + 1,
                marks=Marks(),
                sent_through=-1,
                time_ms=1_000 + told.start_ms + told.turns,
                workflow_id=told.workflow_id,
                run_id=run_id,
                turn=told.turns + 1,
                first_event_id=told.events + 1,
                activation=Activation.DONE,
                events=events,
            )
            told.turns += 1
            told.events += len(events)
            assert fold.add(turn, fold.next_offset) == ""
        fold.flush()

    def close(self) -> None:
        for store in self.stores:
            if store is not None:
                store.close()
