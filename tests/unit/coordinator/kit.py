"""A coordinator on the simulated log, stepped by hand, on a clock that a test moves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from orchestrator.codec import avro, payloads
from orchestrator.coordinator.coordinator import Coordinator
from orchestrator.coordinator.partition import Partition
from orchestrator.coordinator.runtime import Repeated
from orchestrator.errors import LogError
from orchestrator.log.faults import Fate, FaultHook
from orchestrator.log.port import Record
from orchestrator.log.simulated import Faults, SimulatedCluster
from orchestrator.log.topics import (
    COMMANDS,
    DEAD_LETTERS,
    HISTORY,
    PUBLISHED,
    REPLIES,
    TASKS,
    USER_TOPICS,
    WORKERS,
)
from orchestrator.protocol import commands as c
from orchestrator.protocol.publications import PublishMark
from orchestrator.protocol.records import Claim, HistoryRecord, Turn
from orchestrator.protocol.tasks import Beat, DeadLetter, Reply, Task, WorkerBeat
from orchestrator.protocol.values import Payload, ReplyTo
from orchestrator.workflow.definition import definition_of

START_MS = 1_700_000_000_000
CALM = msgspec.structs.replace(Faults.none(), latency_ms=0)
TO_ME = ReplyTo(partition=0, client_id="me")


def pay(*values: Any) -> tuple[Payload, ...]:
    return payloads.DEFAULT.to_payloads(values)


class SteppedLoop:
    """A loop whose steps a test makes."""

    def __init__(self, name: str, work: Repeated) -> None:
        self.name, self.work, self.ended = name, work, False

    def wake(self) -> None:
        pass

    def end(self, wait_s: float = 0.0) -> None:
        self.ended = True
        self.work.close()


class Runtime:
    """Time stands still unless a test moves it. ``at`` may be replaced."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        self.random = Random(1)
        self.hook: Callable[[str], None] = lambda point: None
        self.loops: list[SteppedLoop] = []

    def wall_ms(self) -> int:
        return START_MS + round(self.elapsed_s * 1_000)

    def monotonic_s(self) -> float:
        return self.elapsed_s

    def at(self, point: str) -> None:
        self.hook(point)

    def repeat(self, name: str, work: Repeated) -> SteppedLoop:
        self.loops = [loop for loop in self.loops if not loop.ended]
        self.loops.append(SteppedLoop(name, work))
        return self.loops[-1]


class Hook(FaultHook):
    """The fates of the next records of a topic."""

    def __init__(self) -> None:
        self.fates: dict[str, list[Fate]] = {}

    def fate(self, topic: str, partition: int, key: bytes) -> Fate:
        fates = self.fates.get(topic)
        return fates.pop(0) if fates else Fate.LAND


class Bench:
    """One coordinator, usually one partition, and everything that can be seen of them on the log."""

    options: dict[str, Any] = {}
    """More arguments of the coordinator."""

    def __init__(self, folder: Path, *workflows: type, partitions: int = 1, **options: Any) -> None:
        self.folder = folder
        self.own_options = options
        self.runtime = Runtime()
        self.hook = Hook()
        self.cluster = SimulatedCluster(
            Random(1), self.runtime.wall_ms, partitions=partitions, faults=CALM, hook=self.hook
        )
        self.workflows = workflows
        self.beats = 0
        self.begin()

    def begin(self, *workflows: type, suspects: tuple[str, ...] = ()) -> None:
        """A (new) process, perhaps with other code."""
        self.workflows = workflows or self.workflows
        definitions = {d.name: d for d in map(definition_of, self.workflows)}
        self.coordinator = Coordinator(
            self.cluster.member("c"),
            self.folder,
            definitions,
            self.runtime,
            log_id="log",
            suspects=suspects,
            **{**self.options, **self.own_options},
        )
        self.coordinator.start()
        self.until(lambda: bool(self.coordinator.partitions) and self.coordinator.owns_all)

    def crash(self) -> None:
        """The process is gone, and its session with it; :meth:`begin` starts the next one."""
        self.coordinator._log.die()  # type: ignore[attr-defined]
        for found in self.coordinator.partitions.values():
            found.store.close()
        self.runtime.elapsed_s += 10

    def restart(self, *workflows: type, suspects: tuple[str, ...] = ()) -> None:
        """End in order, begin anew."""
        self.coordinator.finish()
        self.begin(*workflows, suspects=suspects)

    @property
    def partition(self) -> Partition:
        return self.coordinator.partitions[0]

    # --- doing ---

    def until(self, condition: Callable[[], bool], steps: int = 200) -> None:
        for _ in range(steps):
            if condition():
                return
            self.coordinator.step()
        raise AssertionError("it does not come to that")

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.coordinator.step()

    def settle(self) -> None:
        """Step until nothing is left to do at this time."""
        self.until(lambda: not self._busy() and self._steps_are_idle())

    def _busy(self) -> bool:
        partition = self.partition
        running = partition.ownership.running
        return bool(
            not running or partition.commands.waiting or partition.resumes or partition.ownership.in_flight
        )

    def _steps_are_idle(self) -> bool:
        """One step decides, the next one sends what came of it."""
        before = self.ends()
        self.step(2)
        return before == self.ends() and not self._busy()

    def ends(self) -> list[int]:
        topics = (COMMANDS, HISTORY, TASKS, REPLIES, DEAD_LETTERS)
        return [self.cluster.partition(topic, 0).end for topic in topics]

    def pass_s(self, seconds: float) -> None:
        """Time passes, a step at least each second."""
        while seconds > 0:
            part = min(seconds, 1.0)
            self.runtime.elapsed_s += part
            seconds -= part
            self.coordinator.step()
        self.settle()

    def put(self, *commands: c.Command) -> None:
        """Commands arrive together: they are decided in one step."""
        for command in commands:
            self.land(COMMANDS, avro.encode(command))

    def send(self, *commands: c.Command) -> None:
        """Commands arrive together, and are done with."""
        self.put(*commands)
        self.settle()

    def land(self, topic: str, value: bytes | None, key: bytes = b"", partition: int = 0) -> None:
        self.cluster.land(Record(topic, partition, -1, 0, key, value, {}))

    def beat(self, **fields: Any) -> None:
        """A worker beats, and everybody has heard it."""
        self.land_beat(**fields)
        self.settle()

    def land_beat(self, **fields: Any) -> None:
        """A worker beats."""
        self.beats += 1
        values: dict[str, Any] = {
            "worker": "w1",
            "identity": "",
            "task_queues": ("default",),
            "slots": 10,
            "running": 0,
            "inbox": 0,
            "inbox_offset": self.cluster.partition(TASKS, 0).end,
            "number": self.beats,
        }
        self.land(WORKERS, avro.encode(WorkerBeat(**values | fields)))

    def publish(self) -> None:
        """Let the publishers do all that they can do at this time."""
        for _ in range(100):
            for loop in self.runtime.loops:
                if not loop.ended:
                    loop.work.step()
            before = self.ends()
            self.step(2)
            publishing = self.partition.publishing
            if publishing is None or (publishing.idle and before == self.ends()):
                return

    # --- seeing ---

    def published(self, topic: str = "orders") -> list[Record]:
        """What consumers see of a user's topic."""
        try:
            return self.cluster.partition(USER_TOPICS + topic, 0).read(0, 1_000_000)
        except LogError:
            return []

    @property
    def marks(self) -> list[PublishMark]:
        return self.all(PUBLISHED)

    def all(self, topic: str, partition: int = 0) -> list[Any]:
        """What a partition holds, decoded."""
        records = self.cluster.partition(topic, partition).read(0, 1_000_000)
        return [avro.decode(record.value) for record in records if record.value is not None]

    @property
    def history(self) -> list[HistoryRecord]:
        return self.all(HISTORY)

    @property
    def turns(self) -> list[Turn]:
        return [record for record in self.history if isinstance(record, Turn)]

    @property
    def claims(self) -> list[Claim]:
        return [record for record in self.history if isinstance(record, Claim)]

    @property
    def tasks(self) -> list[Task]:
        return self.all(TASKS)

    @property
    def replies(self) -> list[Reply]:
        return self.all(REPLIES)

    @property
    def letters(self) -> list[DeadLetter]:
        return self.all(DEAD_LETTERS)

    @property
    def worker_beats(self) -> list[Beat]:
        return self.all(WORKERS)

    def reply(self, request_id: str) -> Reply:
        """The newest answer to a request."""
        return [reply for reply in self.replies if reply.request_id == request_id][-1]

    def value(self, request_id: str) -> Any:
        """The value that a request was answered with."""
        result = self.reply(request_id).result
        assert result is not None, self.reply(request_id)
        return payloads.DEFAULT.from_payload(result)

    def words(self) -> list[str]:
        """The turns, as words: activation and kinds of events."""
        return [words(turn) for turn in self.turns]


def words(turn: Turn) -> str:
    kinds = " ".join(type(event).__name__ for event in turn.events)
    return f"{turn.activation.value}: {kinds}"


def start(workflow_id: str = "a", request_id: str = "start", **fields: Any) -> c.StartWorkflow:
    return c.StartWorkflow(
        **{
            "workflow_id": workflow_id,
            "request_id": request_id,
            "workflow_type": "Order",
            "reply_to": TO_ME,
        }
        | fields
    )


def signal(name: str, *args: Any, workflow_id: str = "a", request_id: str = "", **fields: Any) -> Any:
    return c.SignalWorkflow(
        workflow_id=workflow_id,
        signal_name=name,
        input=pay(*args),
        request_id=request_id or f"{name}{args}",
        reply_to=TO_ME,
        **fields,
    )


def query(name: str, workflow_id: str = "a", request_id: str = "query", **fields: Any) -> c.QueryWorkflow:
    return c.QueryWorkflow(
        workflow_id=workflow_id, query_name=name, request_id=request_id, reply_to=TO_ME, **fields
    )


def report(task: Any, kind: type[c.ActivityCommand] = c.CompleteActivity, **fields: Any) -> Any:
    """What a worker says of a task."""
    return kind(
        workflow_id=task.workflow_id,
        run_id=task.run_id,
        activity_id=task.activity_id,
        attempt=task.attempt,
        dispatch=task.dispatch,
        worker=task.worker,
        **fields,
    )
