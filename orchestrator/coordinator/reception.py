"""What becomes of a command before it is decided.

It is put with the inputs of its workflow id; or, if it is of no use or of another partition, set aside or
forwarded, and consumed when that is acknowledged.
"""

from __future__ import annotations

import msgspec

from orchestrator.codec import avro
from orchestrator.coordinator.dispatch import Dispatcher
from orchestrator.coordinator.drafts import Input, LoseWorker, Made
from orchestrator.coordinator.meter import Meter
from orchestrator.coordinator.partition import Partition
from orchestrator.coordinator.replies import answers, rejected
from orchestrator.coordinator.runtime import Runtime
from orchestrator.coordinator.sender import Sender
from orchestrator.errors import UsageError
from orchestrator.log.port import Log, Record
from orchestrator.log.topics import COMMANDS
from orchestrator.protocol.commands import Command, Rejection, StartWorkflow, WorkerLost, WorkflowCommand
from orchestrator.protocol.ids import check_workflow_id, partition_of
from orchestrator.protocol.traces import trace_of_record

MAX_COMMANDS_PER_STEP = 1_000
"""Per partition: bounds the length of a step, and so the latency of the other partitions."""

LOST_AGAIN_S = 10.0
"""That a worker is lost is said again if it was not decided after so long."""


class Reception:
    """Takes the commands of all partitions of a coordinator."""

    def __init__(
        self, log: Log, sender: Sender, dispatcher: Dispatcher, runtime: Runtime, meter: Meter
    ) -> None:
        """``log`` knows how many partitions there are, ``dispatcher`` what a lost worker had."""
        self._log, self._sender, self._dispatcher = log, sender, dispatcher
        self._runtime, self._meter = runtime, meter
        self._lost: dict[tuple[int, str], float] = {}
        """Workers that were said to be lost, which was not decided yet, and when."""

    def take(self, partition: Partition, inputs: dict[str, list[Input]], made: Made, now_ms: int) -> int:
        """Put commands with the inputs of their workflow id; returns how many were taken from the queue."""
        count = self._log.partitions(COMMANDS)
        queue = partition.commands
        taken = 0
        while queue.waiting and taken < MAX_COMMANDS_PER_STEP:
            record = queue.pop()
            taken += 1
            command = self._decode(partition, record)
            if command is None:
                continue
            self._meter.took(command, now_ms - record.time_ms)
            if isinstance(command, WorkerLost):
                made.late.append(record.offset)
                self._lose_worker(partition, command, inputs)
                continue
            if command.workflow_id in partition.poisoned:
                self._refuse(partition, record, command)
                continue
            home = partition_of(command.workflow_id, count)
            if home != partition.number:
                self._sender.forward(partition, record, command, home)
                continue
            inputs.setdefault(command.workflow_id, []).append(Input(command, record.offset))
        return taken

    def take_transactional(self, partition: Partition, record: Record) -> None:
        """A command of a transaction that was committed: to where commands are decided."""
        if not partition.ownership.running or not partition.intake.take(record.offset):
            return
        command = self._decode(partition, record)
        if isinstance(command, WorkerLost):
            reason = "only coordinators can know that a worker is lost"
            self._sender.set_aside(record, reason, partition)
        elif command is not None:
            home = partition_of(command.workflow_id, self._log.partitions(COMMANDS))
            self._sender.forward(partition, record, command, home)

    def lose_workers(self, partition: Partition, *, unseen: bool) -> None:
        """Say which workers are lost; ``unseen``: also those that nobody has heard of since the start."""
        now_s = self._runtime.monotonic_s()
        for worker in self._dispatcher.workers_to_lose(partition.number, unseen=unseen):
            if now_s >= self._lost.get((partition.number, worker), 0.0):
                self._lost[partition.number, worker] = now_s + LOST_AGAIN_S
                self._sender.lose_worker(partition.number, worker)

    def _decode(self, partition: Partition, record: Record) -> Command | None:
        try:
            command = avro.decode_command(record.value or b"")
            if not isinstance(command, WorkerLost):
                check_workflow_id(command.workflow_id)
        except (avro.DecodeError, UsageError) as error:
            self._sender.set_aside(record, str(error), partition)
            return None
        if not command.request_id:
            request_id = f"{record.topic}-{record.partition}-{record.offset}"
            command = msgspec.structs.replace(command, request_id=request_id)
        if record.headers and isinstance(command, StartWorkflow) and not command.headers:
            command = msgspec.structs.replace(command, headers=trace_of_record(record.headers))
        return command

    def _refuse(self, partition: Partition, record: Record, command: WorkflowCommand) -> None:
        """A command of an id that the engine failed on: a dead letter, and an answer to who asks."""
        self._sender.set_aside(record, partition.poisoned[command.workflow_id], partition)
        message = f"the engine failed on workflow id {command.workflow_id!r}; see the dead letters"
        for answer in answers(command, rejected(Rejection(reason="engine-failed", message=message))):
            self._sender.answer(partition, answer, partition.ownership.next_offset - 1)

    def _lose_worker(self, partition: Partition, command: WorkerLost, inputs: dict[str, list[Input]]) -> None:
        self._dispatcher.lose(command.worker)
        for ref in self._dispatcher.open_on(command.worker, partition.number):
            if ref.workflow_id in partition.poisoned:
                continue
            given = Input(LoseWorker(command.worker), run_id=ref.run_id)
            found = inputs.setdefault(ref.workflow_id, [])
            if given not in found:
                found.append(given)
        self._lost.pop((partition.number, command.worker), None)
