"""Appending: producers, who shares them, and what becomes of their records.

An *ordered* appender sends through the present **history producer**, which is shared for as long as nothing
goes wrong. Whoever had an incident is abandoned; the next ordered appender gets a fresh producer, and so do
those that come after it, while the others keep the one of their claim. A producer that nobody uses any
more, and is not the present one, is purged and released in the background. So an incident on one partition
moves only that one, and there are never more producers than claims, and one.

Every unordered appender has producers of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from orchestrator.errors import AppenderFailed
from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.health import Health
from orchestrator.log.kafka.places import Places
from orchestrator.log.kafka.undertaker import Undertaker
from orchestrator.log.port import Delivery, Outcome, Record

_NO_HEADERS: Mapping[str, bytes] = {}

BATCH_REFUSED = KafkaError.MSG_SIZE_TOO_LARGE
"""The broker refuses a batch as a whole, though one record of it alone may be at fault."""

REFUSALS = frozenset(
    {
        BATCH_REFUSED,
        KafkaError.INVALID_RECORD,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
    }
)
"""After these a record has not landed and never will. After any other error nobody knows."""

_BEHIND_A_FAILURE = "an earlier record of this ordered appender failed"


class _Draft(msgspec.Struct, frozen=True):
    """A record to be sent, and whether it needs a batch of its own."""

    record: Record
    token: Any
    alone: bool = False


class Line:
    """A producer, and what is under way on it."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.users = 0
        self.suspect = False
        """Whether something went wrong: it gets no new users."""
        self.fatal = ""
        """What ended the producer, in librdkafka's words."""
        self.open_records = 0
        """Without an outcome yet. The producer's callbacks count it down."""
        self.progress_s = monotonic()

    def produce(self, topic: str, record: Record, on_delivery: Any) -> None:
        """Hand a record to the client.

        Raises:
            BufferError: the client's queue is full: serve, and come again.
            KafkaException: it does not take the record.
        """
        self.producer.produce(
            topic,
            record.value,
            key=record.key,
            partition=record.partition,
            on_delivery=on_delivery,
            headers=list(record.headers.items()) if record.headers else None,
        )
        if not self.open_records:
            self.progress_s = monotonic()
        self.open_records += 1

    def serve(self) -> None:
        """Run the callbacks that are due."""
        before = self.open_records
        try:
            self.producer.poll(0)
        except KafkaException as error:  # a fatal error is raised once
            self.fatal = error.args[0].str()
            self.suspect = True
            self.producer.purge(blocking=False)  # so that each of its records is reported
        if self.open_records != before:
            self.progress_s = monotonic()


class Producers:
    """All appenders of one member, and the producers behind them."""

    def __init__(self, clients: Clients, places: Places, health: Health, undertaker: Undertaker) -> None:
        self.places = places
        self.health = health
        self._clients = clients
        self._undertaker = undertaker
        self._appenders: dict[KafkaAppender, None] = {}
        self._deliveries: list[tuple[KafkaAppender, Delivery]] = []
        self._delivered = False
        """Whether the broker has taken a record, and nobody was told yet that it answers."""
        self.failed = False
        """Whether :meth:`take` has an outcome that is a failure."""
        self._lines: dict[Line, None] = {}
        self._history = self._fresh_history()

    def appender(self, *, ordered: bool) -> KafkaAppender:
        """A new appender; see the module's docstring for which producer it uses."""
        if ordered and self._history.suspect:
            self._history = self._fresh_history()
        line = self._history if ordered else self._line(self._clients.outgoing_producer())
        line.users += 1
        appender = KafkaAppender(self, line, ordered=ordered)
        self._appenders[appender] = None
        return appender

    def send(self) -> None:
        """Hand what was appended to the clients."""
        for appender in self._appenders:
            if appender.pending:
                appender.send()

    def serve(self) -> None:
        """Take the outcomes that are known by now."""
        for line in self._lines:
            line.serve()
        if self._delivered:
            self._delivered = False
            self.health.answered()

    def take(self) -> list[Delivery]:
        """The outcomes since the last call, without those of abandoned appenders."""
        if not self._deliveries:
            return []
        taken, self._deliveries = self._deliveries, []
        self.failed = False
        return [delivery for appender, delivery in taken if not appender.abandoned]

    @property
    def settled(self) -> bool:
        """Whether :meth:`take` has something to hand out."""
        return bool(self._deliveries)

    def owed_since_s(self) -> float:
        """Since when (monotonic) the slowest producer has heard nothing; infinite if nothing is awaited."""
        waiting = [line.progress_s for line in self._lines if line.open_records]
        return min(waiting, default=float("inf"))

    def report(self, appender: KafkaAppender, delivery: Delivery) -> None:
        """An outcome is known. Called by appenders."""
        self._deliveries.append((appender, delivery))
        if delivery.outcome is Outcome.DELIVERED:
            self._delivered = True
        else:
            self.failed = True

    def lone_line(self) -> Line:
        """A producer that sends each record alone, for one appender."""
        line = self._line(self._clients.lone_producer())
        line.users = 1
        return line

    def release(self, appender: KafkaAppender) -> None:
        """An appender was abandoned: let go of the producers that nobody else uses."""
        self._appenders.pop(appender, None)
        for line in appender.lines:
            line.users -= 1
            if line.users or (line is self._history and not line.suspect):
                continue
            del self._lines[line]
            if line is self._history:
                self._history = self._fresh_history()
            line.producer.purge(blocking=False)
            self._undertaker.bury(line.producer)
        # The last reference to a producer is the undertaker's: to drop it means to wait for its threads.
        appender.lines.clear()

    def close(self) -> None:
        """Let go of all producers; what is under way is given a moment."""
        for line in self._lines:
            self._undertaker.part(line.producer)
        self._lines.clear()
        self._appenders.clear()

    def _fresh_history(self) -> Line:
        """Made before it is needed: until a producer has its id from the broker, half a second passes."""
        return self._line(self._clients.history_producer())

    def _line(self, producer: Producer) -> Line:
        line = Line(producer)
        self._lines[line] = None
        return line


class KafkaAppender:
    """Implements :class:`orchestrator.log.port.Appender`. Made by :meth:`Producers.appender`.

    Behind a record that failed, an ordered one sends nothing more: all later records are UNKNOWN.
    """

    def __init__(self, producers: Producers, line: Line, *, ordered: bool) -> None:
        self.abandoned = False
        self.pending: deque[_Draft] = deque()
        self.lines = [line]
        self._producers = producers
        self._ordered = ordered
        self._failed = False
        self._open_records = 0

    def append(
        self,
        topic: str,
        partition: int,
        key: bytes,
        value: bytes | None,
        *,
        headers: Mapping[str, bytes] | None = None,
        token: Any = None,
    ) -> None:
        """Append a record; its delivery with ``token`` comes by a later poll.

        Raises:
            AppenderFailed: the appender was abandoned.
        """
        if self.abandoned:
            raise AppenderFailed("the appender was abandoned; take a new one")
        self.pending.append(
            _Draft(Record(topic, partition, -1, 0, key, value, headers or _NO_HEADERS), token)
        )

    def abandon(self) -> None:
        """Purge what was not sent yet; report nothing more. Never waits.

        On a shared producer what was handed to the client stays under way: it may land, and is void.
        """
        if self.abandoned:
            return
        self.abandoned = True
        self.pending.clear()
        if self._failed or self._open_records:
            self.lines[0].suspect = True
        self._producers.release(self)

    def send(self) -> None:
        """Hand what was appended to the client, as far as its queue takes it."""
        while self.pending:
            draft = self.pending[0]
            if self._ordered and (self._failed or self.lines[0].fatal):
                self._conclude(draft.token, Outcome.UNKNOWN, self.lines[0].fatal or _BEHIND_A_FAILURE)
            elif refusal := self._producers.places.refusal(draft.record):
                self._conclude(draft.token, Outcome.REFUSED, refusal)
            elif not self._produce(draft):
                return
            self.pending.popleft()

    def _produce(self, draft: _Draft) -> bool:
        """Whether the client has a place for the record; what it does not take has failed."""
        line = self._lone_line() if draft.alone else self.lines[0]
        try:
            line.produce(
                self._producers.places.full(draft.record.topic),
                draft.record,
                partial(self._on_delivery, draft, line),
            )
        except BufferError:
            return False
        except KafkaException as error:
            self._conclude(draft.token, *_verdict(error.args[0]))
        else:
            self._open_records += 1
        return True

    def _lone_line(self) -> Line:
        if len(self.lines) == 1:
            self.lines.append(self._producers.lone_line())
        return self.lines[1]

    def _on_delivery(self, draft: _Draft, line: Line, error: KafkaError | None, message: Message) -> None:
        """The client's report. Runs in the thread that polls, and only records."""
        line.open_records -= 1
        self._open_records -= 1
        if self.abandoned:
            return
        if error is None:
            self._producers.report(self, Delivery(draft.token, Outcome.DELIVERED, message.offset() or 0))
        elif error.code() == BATCH_REFUSED and not self._ordered and not draft.alone:
            self.pending.append(_Draft(draft.record, draft.token, alone=True))
        else:
            if error.code() in REFUSALS:
                self._producers.health.complain(error, draft.record.topic)
            self._conclude(draft.token, *_verdict(error))

    def _conclude(self, token: Any, outcome: Outcome, error: str) -> None:
        self._failed = True
        self._producers.report(self, Delivery(token, outcome, error=error))


def _verdict(error: KafkaError) -> tuple[Outcome, str]:
    return (Outcome.REFUSED if error.code() in REFUSALS else Outcome.UNKNOWN), error.str()
