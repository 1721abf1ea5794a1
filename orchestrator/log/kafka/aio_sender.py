"""Appends records to Kafka in batches, one under way per partition, for one event loop.

While a batch is under way the next gathers, so load makes larger batches and nothing ever lingers. Batches
are built here and not by ``AIOKafkaProducer.send``: a future, a task step and a metadata object for each
record cost four times what the record costs [measured: 34 µs against 8].

Two facts about aiokafka's idempotent producer decide how it is used:

- after the broker has refused a batch, or its outcome got lost, the sequence numbers of that partition are
  wrong for ever, and every later batch is refused. So a producer is used until its first failure, no longer;
- it never gives a batch up, and never asks the bootstrap servers again. So a producer that has not brought
  an answer in time is abandoned, and its successor begins with the bootstrap servers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from enum import Enum
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from orchestrator.errors import ConfigError, OrchestratorError, RecordRefused, Unavailable
from orchestrator.log.kafka.aio_clients import stop_producer
from orchestrator.log.kafka.outage import Outage
from orchestrator.log.port import Record
from orchestrator.log.waiting import Acknowledgements, Token

_logger = logging.getLogger(__name__)

MAX_BACKLOG = 20_000
"""Records that may wait for an acknowledgement: a second of what a process can send. More are turned away."""

BATCH_BYTES = 256 * 1024
"""Of one batch. Far below what a topic takes, so that a record that is too large is alone in its batch."""

OUTAGE_AFTER_S = 3.0
"""A batch without an answer for so long means that the broker is away, not that it is busy."""

STOP_S = 2.0
"""How long a producer that is not needed any more may take for what it still holds."""

RETRY_FIRST_S, RETRY_MOST_S = 0.1, 2.0
"""Between attempts to reach the brokers: soon at first, for a restart takes seconds; then without haste."""

REFUSALS = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    InvalidTopicError,
)
"""Errors that no repeat changes."""


class _Parcel(NamedTuple):
    """A record, who is told of its fate, and when nobody waits for it any more."""

    record: Record
    token: Token
    deadline: float


class _Place(NamedTuple):
    """A partition of a topic, by its full name."""

    topic: str
    partition: int


class _Verdict(Enum):
    """What becomes of the records of a batch."""

    SETTLED = "settled"
    AGAIN = "again"
    EACH_ALONE = "each-alone"


class Sender:
    """Everything that one process appends. Use it from one event loop.

    Args:
        connect: a started producer.
        waiting: is told what became of each append.
        timeout_s: how long anybody waits for an append; a batch that takes longer has no listeners left.
        outage: is told whether the brokers answer.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[AIOKafkaProducer]],
        waiting: Acknowledgements,
        timeout_s: float,
        outage: Outage,
    ) -> None:
        self._connect = connect
        self._waiting = waiting
        self._timeout_s = timeout_s
        self._outage = outage
        self._queues: dict[_Place, deque[_Parcel]] = {}
        self._backlog = 0
        self._producer: AIOKafkaProducer | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def submit(self, topic: str, record: Record, token: Token) -> None:
        """Append a record to the topic of that full name; its fate is told to ``token``.

        Raises:
            Unavailable: too many records wait already.
        """
        if self._backlog >= MAX_BACKLOG:
            raise Unavailable(f"{MAX_BACKLOG} records wait for Kafka already")
        place = _Place(topic, record.partition)
        queue = self._queues.get(place)
        if queue is None:
            queue = self._queues[place] = deque()
            self._spawn(self._pump(place, queue))
        queue.append(_Parcel(record, token, asyncio.get_running_loop().time() + self._timeout_s))
        self._backlog += 1

    async def close(self) -> None:
        """Send nothing more. What is not acknowledged may still land."""
        tasks = [*self._tasks, *([self._connecting] if self._connecting else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._queues.clear()
        if self._producer is not None:
            await stop_producer(self._producer, STOP_S)

    # --- one partition ---

    async def _pump(self, place: _Place, queue: deque[_Parcel]) -> None:
        """Send what is queued for a partition, batch by batch, until nothing is left."""
        alone = 0
        while queue:
            try:
                producer = await self._ready()
            except ConfigError as error:
                self._refuse(queue, error)
                continue
            builder = producer.create_batch()
            parcels = self._fill(builder, queue, 1 if alone else MAX_BACKLOG)
            alone = max(0, alone - len(parcels))
            if not parcels:
                continue
            verdict = await self._send(producer, place, builder, parcels)
            if verdict is not _Verdict.SETTLED:
                queue.extendleft(reversed(parcels))
            else:
                self._backlog -= len(parcels)
            if verdict is _Verdict.EACH_ALONE:
                alone = len(parcels)
        del self._queues[place]

    def _fill(self, builder: Any, queue: deque[_Parcel], limit: int) -> list[_Parcel]:
        """Move records from the queue into a batch; those that nobody waits for any more are dropped."""
        now = asyncio.get_running_loop().time()
        parcels: list[_Parcel] = []
        while queue and len(parcels) < limit:
            parcel = queue[0]
            if parcel.deadline <= now:
                self._drop_first(queue)
                continue
            record = parcel.record
            headers = list(record.headers.items())
            if builder.append(timestamp=None, key=record.key, value=record.value, headers=headers) is None:
                break
            queue.popleft()
            parcels.append(parcel)
        return parcels

    async def _send(
        self, producer: AIOKafkaProducer, place: _Place, builder: Any, parcels: list[_Parcel]
    ) -> _Verdict:
        """Send a batch, and tell its records what became of them unless they are to be sent again."""
        alarm = asyncio.get_running_loop().call_later(OUTAGE_AFTER_S, self._silent, OUTAGE_AFTER_S)
        try:
            async with asyncio.timeout(self._timeout_s):
                batch = await producer.send_batch(builder, place.topic, partition=place.partition)
                found = await batch
        except TimeoutError:
            self._replace(producer, 0)
            self._fail(parcels, self._silent(self._timeout_s))
        except UnknownTopicOrPartitionError:
            # It was not sent. Whoever makes the next producer finds out whether the topic is gone.
            self._replace(producer, self._timeout_s)
            return _Verdict.AGAIN
        except REFUSALS as error:
            self._replace(producer, self._timeout_s)
            if len(parcels) > 1:
                return _Verdict.EACH_ALONE  # one of them is refused, the others are innocent
            self._fail(parcels, RecordRefused(f"Kafka refused a record on {place.topic}: {_reason(error)}"))
        except Exception as error:
            if not isinstance(error, KafkaError):
                _logger.exception("sending to Kafka failed; what was sent is repeated by its senders")
            self._replace(producer, self._timeout_s)
            self._fail(parcels, Unavailable(self._outage.describe(_reason(error))))
        else:
            self._outage.over()
            for offset, parcel in enumerate(parcels, found.offset):
                self._waiting.settle(parcel.token, offset)
        finally:
            alarm.cancel()
        return _Verdict.SETTLED

    def _silent(self, silent_s: float) -> Unavailable:
        error = Unavailable(self._outage.describe(f"no acknowledgement for {silent_s:.0f} s"))
        self._outage.begin(str(error))
        return error

    def _fail(self, parcels: list[_Parcel], error: Exception) -> None:
        for parcel in parcels:
            self._waiting.fail(parcel.token, error)

    def _refuse(self, queue: deque[_Parcel], error: ConfigError) -> None:
        """The log is not there as it should be: nothing in the queue can be appended."""
        self._fail(list(queue), RecordRefused(str(error)))
        self._backlog -= len(queue)
        queue.clear()

    def _drop_first(self, queue: deque[_Parcel]) -> None:
        parcel = queue.popleft()
        self._backlog -= 1
        self._waiting.fail(parcel.token, Unavailable(self._outage.describe("it could not be sent in time")))

    # --- the producer ---

    async def _ready(self) -> AIOKafkaProducer:
        """The producer, once the brokers answer; ConfigError if what answers is not this log."""
        while self._producer is None:
            if self._connecting is None:
                self._connecting = asyncio.create_task(self._reach(), name="reach Kafka")
            await asyncio.shield(self._connecting)
        return self._producer

    async def _reach(self) -> None:
        try:
            for delay_s in delays():
                try:
                    self._producer = await self._connect()
                    return
                except ConfigError:
                    raise
                except OrchestratorError as error:
                    self._outage.begin(str(error))
                self._drop_late()
                await asyncio.sleep(delay_s)
        finally:
            self._connecting = None

    def _drop_late(self) -> None:
        now = asyncio.get_running_loop().time()
        for queue in self._queues.values():
            while queue and queue[0].deadline <= now:
                self._drop_first(queue)

    def _replace(self, producer: AIOKafkaProducer, patience_s: float) -> None:
        """Use a producer no longer. It has some time to bring what it holds of other partitions."""
        if producer is self._producer:
            self._producer = None
            self._spawn(stop_producer(producer, patience_s))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def delays() -> Iterator[float]:
    """Seconds to wait between attempts to reach the brokers, without end."""
    delay_s = RETRY_FIRST_S
    while True:
        yield delay_s
        delay_s = min(2 * delay_s, RETRY_MOST_S)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__} {error}".strip()
