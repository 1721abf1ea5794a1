"""Appends records to Kafka, for one event loop, by one producer that is shared by a whole process.

The producer is called on the loop: to hand it a record, or to ask what became of others, takes microseconds
and never waits. Nothing tells the loop of a report, so it looks: every other millisecond while somebody waits
for one that comes, and now and then otherwise. A thread that waits for reports would wake for each of them,
and the loop with it.

One request is under way, and what comes meanwhile gathers for the next, so load makes larger batches, and
nothing ever lingers.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orchestrator.errors import RecordRefused, Unavailable
from orchestrator.log.kafka.appender import BATCH_REFUSED, REFUSALS
from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.health import explain
from orchestrator.log.kafka.undertaker import Undertaker
from orchestrator.log.port import Record
from orchestrator.log.waiting import Acknowledgements, Token

_logger = logging.getLogger(__name__)

MAX_BACKLOG = 20_000
"""Records that may wait for an acknowledgement: a second of what a process can send. More are turned away."""

AWAITED_FIRST_S, AWAITED_MOST_S = 0.002, 0.05
"""Between looks while somebody waits: a broker answers within one or two; one that does not is slow."""

POSTED_S = 0.05
"""For a report that nobody waits for: what failed is to be known, and makes room."""

IDLE_S = 5.0
"""Without anything under way, what the client has to say is heard so often: that the brokers are away."""


class _Parcel(NamedTuple):
    """A record, the full name of its topic, who is told of its fate; and whether it was sent alone."""

    topic: str
    record: Record
    token: Token
    alone: bool = False


class Sender:
    """Everything that one process appends. Use it from one event loop.

    Args:
        clients: makes the producers.
        waiting: is told what became of each append.
    """

    def __init__(self, clients: Clients, waiting: Acknowledgements) -> None:
        self._clients = clients
        self._waiting = waiting
        self._undertaker = Undertaker()
        self._producers: list[Producer] = []
        self._apart: asyncio.Task[None] | None = None
        self._refused: list[_Parcel] = []
        self._reports: list[tuple[_Parcel, KafkaError | None, int]] = []
        self._open_records = 0
        self._awaited_records = 0
        self._pause_s = AWAITED_FIRST_S
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether there is a producer; brokers may be away nevertheless."""
        return bool(self._producers)

    async def connect(self) -> None:
        """Make the producer.

        Raises:
            ConfigError: the Kafka client refuses its settings.
            Unavailable: the log was closed.
        """
        self._add(await asyncio.to_thread(self._clients.sender, MAX_BACKLOG))
        self._look_within(IDLE_S)

    def submit(self, topic: str, record: Record, token: Token) -> None:
        """Append a record to the topic of that full name; its fate is told to ``token``.

        Raises:
            Unavailable: too many records wait already.
        """
        self._produce(self._producers[0], _Parcel(topic, record, token))
        self._look_within(AWAITED_FIRST_S if self._awaited_records else POSTED_S)

    async def close(self) -> None:
        """Send nothing more. What is under way is given a moment, and nobody is told of it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._apart is not None:
            self._apart.cancel()
            await asyncio.gather(self._apart, return_exceptions=True)
        while self._producers:  # the last reference must be the undertaker's
            self._undertaker.part(self._producers.pop())
        await asyncio.to_thread(self._undertaker.wait)

    def _add(self, producer: Producer) -> None:
        if self._closed:
            self._undertaker.bury(producer)
            raise Unavailable("this side of the log is closed")
        self._producers.append(producer)

    def _produce(self, producer: Producer, parcel: _Parcel) -> None:
        record = parcel.record
        try:
            producer.produce(
                parcel.topic,
                record.value,
                key=record.key,
                partition=record.partition,
                on_delivery=partial(self._on_delivery, parcel),
                headers=list(record.headers.items()) if record.headers else None,
            )
        except BufferError:
            raise Unavailable(f"{MAX_BACKLOG} records wait for Kafka already") from None
        except KafkaException as error:
            self._conclude(parcel, error.args[0])
            return
        self._open_records += 1
        if isinstance(parcel.token, asyncio.Future):
            self._awaited_records += 1

    def _on_delivery(self, parcel: _Parcel, error: KafkaError | None, message: Message) -> None:
        """The client's report. Only noted: whoever is told may send again, and the client is being polled.

        After the close it comes in another thread, and nobody looks at it any more.
        """
        self._reports.append((parcel, error, message.offset() or 0))

    def _settle(self, parcel: _Parcel, error: KafkaError | None, offset: int) -> None:
        self._open_records -= 1
        if isinstance(parcel.token, asyncio.Future):
            self._awaited_records -= 1
        if error is None:
            self._waiting.settle(parcel.token, offset)
        elif error.code() == BATCH_REFUSED and not parcel.alone:
            self._send_alone(parcel)
        else:
            self._conclude(parcel, error)

    def _conclude(self, parcel: _Parcel, error: KafkaError) -> None:
        if error.code() in REFUSALS:
            words = f"Kafka refused a record on {parcel.topic}: {explain(error)}"
            self._waiting.fail(parcel.token, RecordRefused(words))
        else:
            self._waiting.fail(parcel.token, Unavailable(self._clients.health.unanswered(error.str())))

    # --- what was refused because of its neighbours ---

    def _send_alone(self, parcel: _Parcel) -> None:
        """A batch was refused as a whole. None of it has landed; one of its records is at fault."""
        self._refused.append(parcel._replace(alone=True))
        if self._apart is None:
            self._apart = asyncio.create_task(self._send_refused(), name="send apart")

    async def _send_refused(self) -> None:
        try:
            if len(self._producers) == 1:
                self._add(await asyncio.to_thread(self._clients.lone_sender))
        finally:
            self._apart = None
        refused, self._refused = self._refused, []
        for parcel in refused:
            self._produce(self._producers[1], parcel)
        self._look_within(AWAITED_FIRST_S)

    # --- reports ---

    def _serve(self) -> None:
        for producer in self._producers:
            producer.poll(0)
        reports, self._reports = self._reports, []
        for report in reports:
            self._settle(*report)
        if any(error is None for _, error, _ in reports):
            self._clients.health.answered()

    def _look(self) -> None:
        self._timer = None
        before = self._open_records
        self._serve()
        if self._open_records != before:
            self._pause_s = AWAITED_FIRST_S
        else:
            self._pause_s = min(2 * self._pause_s, AWAITED_MOST_S)
        within_s = self._pause_s if self._awaited_records else POSTED_S
        self._look_within(within_s if self._open_records else IDLE_S)

    def _look_within(self, within_s: float) -> None:
        at = asyncio.get_running_loop().time() + within_s
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(at, self._look)
