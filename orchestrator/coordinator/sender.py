"""What a coordinator appends beside history: tasks, answers, beats, dead letters and forwarded commands.

One unordered appender for all partitions: each of these records may fail alone. What has to be known to have
left carries a :class:`Receipt` of the claim that sent it. A partition that waits for one in vain claims anew,
and sends it again; the appender stays, for others have records under way on it. What comes twice is known to
its receiver.
"""

from __future__ import annotations

import logging
from typing import Any

import msgspec

from orchestrator.codec import avro
from orchestrator.coordinator.drafts import Answer
from orchestrator.coordinator.meter import Meter
from orchestrator.coordinator.outflow import Receipt
from orchestrator.coordinator.partition import Partition
from orchestrator.engine.outbox import Outgoing
from orchestrator.log.letters import letter_of, letter_record
from orchestrator.log.port import Appender, Log, Record
from orchestrator.log.topics import (
    CLIENT_HEADER,
    COMMANDS,
    DEAD_LETTERS,
    HISTORY,
    META,
    REPLIES,
    TASKS,
    WORKER_HEADER,
    WORKERS,
)
from orchestrator.protocol.commands import Command, WorkerLost
from orchestrator.protocol.tasks import CoordinatorBeat

log = logging.getLogger(__name__)


class Sender:
    """Sends for all partitions of a coordinator."""

    def __init__(self, log_: Log, meter: Meter) -> None:
        """Send through ``log_``; ``meter`` counts what is set aside."""
        self._meter = meter
        self._appender: Appender = log_.appender(ordered=False)

    def send(self, partition: Partition, offset: int, outgoing: list[Outgoing]) -> None:
        """Send the tasks that follow from a turn at an offset of history."""
        sent = partition.outflow.expect(offset, len(outgoing), partition.now_s)
        for out in outgoing:
            task = out.task
            receipt = Receipt(partition.number, partition.ownership.nonce, sent, task)
            key = f"{task.run_id}/{task.activity_id}/{task.attempt}/{task.dispatch}".encode()
            headers = {WORKER_HEADER: task.worker.encode()}
            self._appender.append(TASKS, out.inbox, key, avro.encode(task), headers=headers, token=receipt)

    def answer(self, partition: Partition, answer: Answer, offset: int) -> None:
        """Send a reply; a view that has seen ``offset`` of history shows what it says."""
        reply = msgspec.structs.replace(answer.reply, partition=partition.number, offset=offset)
        headers = {CLIENT_HEADER: answer.reply_to.client_id.encode()}
        key = reply.request_id.encode()
        self._appender.append(REPLIES, answer.reply_to.partition, key, avro.encode(reply), headers=headers)

    def forward(self, partition: Partition, record: Record, command: Command, home: int) -> None:
        """A command on the wrong partition is never decided there, nor is one on ``commands-tx``."""
        partition.hold(record)
        receipt = Receipt(partition.number, partition.ownership.nonce, forwarded=record)
        self._appender.append(COMMANDS, home, record.key, avro.encode(command), token=receipt)

    def set_aside(self, record: Record, reason: str, partition: Partition | None) -> None:
        """A record is of no use: to the dead letters. It is consumed, in ``partition``, when it is there."""
        log.warning("%s-%d at %d: %s", record.topic, record.partition, record.offset, reason)
        self._meter.set_aside(record.topic)
        receipt = None
        if partition is not None:
            partition.hold(record)
            receipt = Receipt(partition.number, partition.ownership.nonce, set_aside=record)
        letter = letter_record(letter_of(record, reason))
        self._appender.append(DEAD_LETTERS, 0, letter.key, letter.value, token=receipt)

    def lose_worker(self, number: int, worker: str) -> None:
        """Death is a command: it is decided after every completion that was appended before it."""
        command = WorkerLost(request_id=f"lost/{worker}", identity="engine", worker=worker, partition=number)
        log.info("partition %d: worker %s is lost", number, worker)
        self._appender.append(COMMANDS, number, worker.encode(), avro.encode(command))

    def erase(self, number: int, key: bytes) -> None:
        """A tombstone for a key of history."""
        self._appender.append(HISTORY, number, key, None)

    def beat(self, beat: CoordinatorBeat, token: Any) -> None:
        """Tell everybody how things are; the outcome comes with ``token``."""
        self._appender.append(WORKERS, 0, beat.coordinator.encode(), avro.encode(beat), token=token)

    def publish_schema(self, key: bytes, schema: bytes) -> None:
        """Tell readers of other versions what we write."""
        self._appender.append(META, 0, key, schema)
