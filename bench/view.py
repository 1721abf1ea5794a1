"""The first page of lists over a million runs, by filter: what the page and the CLI wait for.

The runs are folded as a view folds them, turn by turn, into stores of 16 partitions; lists are asked for as
HTTP asks for them, but without HTTP.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from orchestrator.protocol import events as e
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.records import Activation, Cause, Marks, Turn
from orchestrator.protocol.values import Failure, FailureKind, Payload
from orchestrator.store.fold import HistoryFold
from orchestrator.store.partition_store import PartitionStore
from orchestrator.view.store_reader import StoreReader

RUNS = 1_000_000
PARTITIONS = 16
PAGES = 100
"""Asked for per filter."""

FLUSH_TURNS = 5_000
"""As many as a poll of a view that catches up may bring."""

START_MS = 1_767_225_600_000
EVERY_MS = 100
"""When the first run starts, and the others after it: ten per second for a day."""

TYPES = [f"Type{n}" for n in range(20)]
MESSAGES = ["gateway timed out", "sanctions hit", "no such account", "card declined", "stock is empty"]

Figures = dict[str, float]


def measure(runs: int = RUNS) -> Figures:
    """Fill the stores and time the pages of each filter."""
    folder = Path(tempfile.mkdtemp(prefix="bench-view-"))
    stores = [
        PartitionStore(folder / str(number), log_id="bench", indexed=True) for number in range(PARTITIONS)
    ]
    try:
        begin = time.perf_counter()
        turns = fill(stores, runs)
        figures = {"turns_folded_per_s": turns / (time.perf_counter() - begin)}
        reader = StoreReader(lambda: stores, served=lambda: frozenset({"default"}))
        for name, ask in asked(reader, runs).items():
            figures |= timed(name, ask)
        return figures
    finally:
        for store in stores:
            store.close()
        shutil.rmtree(folder)


def fill(stores: list[PartitionStore], runs: int) -> int:
    """Write runs through the fold; returns how many turns those are."""
    folds = [HistoryFold(store, strict=False) for store in stores]
    unflushed = 0
    total = 0
    for number in range(runs):
        workflow_id = f"order-{number}"
        fold = folds[partition_of(workflow_id, PARTITIONS)]
        for turn in turns_of(number, workflow_id):
            assert fold.add(turn, fold.next_offset) == ""
            total += 1
            unflushed += 1
        if unflushed >= FLUSH_TURNS or number == runs - 1:
            unflushed = 0
            for one in folds:
                one.flush()
        if number % 100_000 == 0:
            print(f"{number:,} runs written", file=sys.stderr, flush=True)
    return total


def turns_of(number: int, workflow_id: str) -> Iterator[Turn]:
    """A run with one activity: nine in ten complete, others fail, are open, blocked or cancelled."""
    rng = Random(number)
    start_ms = START_MS + number * EVERY_MS
    run_id = f"{start_ms:012x}{rng.getrandbits(80):020x}"
    started = e.WorkflowStarted(
        workflow_type=TYPES[min(int(rng.expovariate(0.3)), len(TYPES) - 1)], input=(Payload(data=b"1"),)
    )
    scheduled = e.ActivityScheduled(
        activity_id=1, activity_type="charge", task_queue="default", worker="w1", input=(Payload(data=b"1"),)
    )
    first = (started, scheduled)
    yield turn_of(workflow_id, run_id, 1, 1, start_ms, first)
    second = ended(rng, number)
    if second:
        yield turn_of(workflow_id, run_id, 2, 3, start_ms + 5_000, second)


def ended(rng: Random, number: int) -> tuple[e.Event, ...]:
    """What happened to it."""
    chance = rng.random()
    root = Failure(
        kind=FailureKind.APPLICATION, type="Refused", message=f"{rng.choice(MESSAGES)}: order {number}"
    )
    if chance < 0.90:
        return (e.ActivityCompleted(activity_id=1), e.WorkflowCompleted(result=Payload(data=b"1")))
    if chance < 0.95:
        return (e.WorkflowFailed(failure=root),)
    if chance < 0.96:
        return (e.WorkflowTerminated(),)
    if chance < 0.97:
        attempt = e.ActivityAttemptFailed(activity_id=1, attempt=1, failure=root, retry_time_ms=START_MS)
        return (attempt,)
    if chance < 0.971:
        return (e.WorkflowBlocked(reason="bug", failure=root),)
    return ()


def turn_of(
    workflow_id: str, run_id: str, number: int, first_event: int, time_ms: int, events: tuple[e.Event, ...]
) -> Turn:
    return Turn(
        epoch=1,
        seq=number,
        marks=Marks(),
        sent_through=-1,
        time_ms=time_ms,
        workflow_id=workflow_id,
        run_id=run_id,
        turn=number,
        first_event_id=first_event,
        activation=Activation.DONE,
        causes=(Cause(source="commands", offset=number, request_id=f"{run_id}/{number}", kind="K"),),
        events=events,
    )


def asked(reader: StoreReader, runs: int) -> dict[str, Callable[[Random], object]]:
    """What is asked for, by name; chance picks the values. Those from ``scan`` on are served by no index.

    With an ``id prefix of some`` begin one in ninety, started one after another.
    """
    groups = [group.fingerprint for group in reader.failures().groups]

    def page(query: Callable[[Random], str]) -> Callable[[Random], object]:
        return lambda rng: reader.list_runs(query(rng))

    def window(rng: Random) -> str:
        first = START_MS + rng.randrange(runs) * EVERY_MS
        return f"StartTime BETWEEN {first} AND {first + 600_000}"

    return {
        "all": page(lambda rng: ""),
        "status": page(lambda rng: f"ExecutionStatus = '{rng.choice(['Failed', 'Running', 'Completed'])}'"),
        "rare status": page(lambda rng: "ExecutionStatus = 'Blocked'"),
        "type": page(lambda rng: f"WorkflowType = '{rng.choice(TYPES)}'"),
        "type and status": page(
            lambda rng: f"WorkflowType = '{rng.choice(TYPES)}' AND ExecutionStatus = 'Failed'"
        ),
        "type, status, time": page(
            lambda rng: (
                f"WorkflowType = '{rng.choice(TYPES)}' AND ExecutionStatus = 'Failed' AND {window(rng)}"
            )
        ),
        "id": page(lambda rng: f"WorkflowId = 'order-{rng.randrange(runs)}'"),
        "id prefix": page(lambda rng: f"WorkflowId STARTS_WITH 'order-{rng.randrange(runs // 10)}'"),
        "id prefix of some": page(lambda rng: f"WorkflowId STARTS_WITH 'order-{rng.randrange(10, 100)}'"),
        "id prefix of all": page(lambda rng: "WorkflowId STARTS_WITH 'order-'"),
        "time": page(window),
        "failure group": page(lambda rng: f"FailureGroup = '{rng.choice(groups)}'"),
        "counts": lambda rng: reader.count_runs(),
        "failures": lambda rng: reader.failures(),
        "stuck": lambda rng: reader.stuck(attempts=2),
        "scan, some match": page(lambda rng: "Attempt >= 2"),
        "scan, none match": page(lambda rng: "HistoryLength > 1000000"),
        "scan in a status": page(lambda rng: "ExecutionStatus = 'Completed' AND HistoryLength > 1000000"),
        "count by scan": lambda rng: reader.count_runs("HistoryLength > 2"),
    }


def timed(name: str, ask: Callable[[Random], object]) -> Figures:
    """How long answers take, over many of them."""
    rng, took = Random(name), []
    for _ in range(PAGES):
        begin = time.perf_counter()
        ask(rng)
        took.append(time.perf_counter() - begin)
    took.sort()
    return {
        f"{name} p50_ms": took[len(took) // 2] * 1e3,
        f"{name} p99_ms": took[len(took) * 99 // 100] * 1e3,
    }
