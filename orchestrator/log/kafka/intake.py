"""One consumer, and the thread that waits in it, for one event loop.

The thread does all that is done with the consumer. The client lets nobody else in meanwhile: a call from
another thread would wait for the end of a poll, and may never get its turn [confluent-kafka 2.16]. So what
is wanted of it are orders, which it looks for between polls.

It hands over what comes in batches, and waits when too many of them were not taken: a loop that is busy gets
larger batches, not more of them.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition

_logger = logging.getLogger(__name__)

POLL_S = 0.1
"""Orders are seen after so long at the latest. A record ends a poll at once. To wake ten times per second is
0.05 % of a CPU, half of what librdkafka's own threads need when idle [measured]."""

ANSWER_S = 1.0
"""For the offset of a partition's end. Records that come meanwhile wait; it is asked for again after them."""

BATCH_RECORDS = 500
"""Handed over at once: bounds how long the loop does nothing else."""

BATCHES = 2
"""Handed over and not yet taken; one may be made while another is looked at."""


class Place(NamedTuple):
    """A partition, by the full name of its topic."""

    topic: str
    partition: int


K_contra = TypeVar("K_contra", contravariant=True)
"""What a receiver knows an order by."""


class Receiver(Protocol[K_contra]):
    """Is told, on the loop, in the order in which it happened."""

    def began(self, order: K_contra, offset: int) -> None:
        """From where on a place is read now."""

    def took(self, messages: list[Message]) -> None:
        """What came of them; errors too."""

    def ended(self, error: Exception) -> None:
        """The consumer is gone, and nobody had asked for it."""


class _Wanted(NamedTuple, Generic[K_contra]):
    """Where to read from, and whose order it is."""

    offset: int
    order: K_contra


class Intake(Generic[K_contra]):
    """Reads places from when they are ordered until they are dropped. Its methods are for the loop.

    Args:
        connect: makes the consumer; called in the thread.
        receiver: gets what it brings.
    """

    def __init__(self, connect: Callable[[], Consumer], receiver: Receiver[K_contra]) -> None:
        self._connect = connect
        self._receiver = receiver
        self._loop = asyncio.get_running_loop()
        self._orders: deque[tuple[Place, _Wanted[K_contra] | None]] = deque()
        self._wanted: dict[Place, _Wanted[K_contra]] = {}
        self._assigned: set[Place] = set()
        self._room = threading.Semaphore(BATCHES)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="kafka-intake", daemon=True)
        self._thread.start()

    def read(self, place: Place, offset: int, order: K_contra) -> None:
        """Read a place from an offset on, or from its present end or beginning, and not from where it was."""
        self._orders.append((place, _Wanted(offset, order)))

    def drop(self, place: Place) -> None:
        """Read a place no more."""
        self._orders.append((place, None))

    async def close(self, timeout_s: float) -> None:
        """End the thread and the consumer; wait for it, but not longer than that."""
        self._closing = True
        self._room.release()
        await asyncio.to_thread(self._thread.join, timeout_s)

    # --- in the thread ---

    def _run(self) -> None:
        try:
            consumer = self._connect()
            try:
                while not self._closing:
                    self._obey(consumer)
                    self._bring(consumer)
            finally:
                consumer.close()
        except Exception as error:
            self._tell(self._receiver.ended, error)

    def _bring(self, consumer: Consumer) -> None:
        first = consumer.poll(POLL_S)
        if first is None:
            return
        # `consume` would wait until it has as many as it may bring, or its time is over.
        messages = [first, *consumer.consume(BATCH_RECORDS - 1, 0)]
        self._room.acquire()
        self._tell(self._hand_over, messages)

    def _obey(self, consumer: Consumer) -> None:
        while self._orders:
            place, wanted = self._orders.popleft()
            self._wanted.pop(place, None)
            if place in self._assigned:
                consumer.incremental_unassign([TopicPartition(*place)])
                self._assigned.discard(place)
            if wanted is not None:
                self._wanted[place] = wanted
        if self._wanted:
            self._begin(consumer)

    def _begin(self, consumer: Consumer) -> None:
        """Assign what is wanted; what cannot be yet is tried again after the next poll."""
        self._look_up(consumer)
        for place, (offset, order) in list(self._wanted.items()):
            if offset >= 0:
                consumer.incremental_assign([TopicPartition(*place, offset)])
                self._assigned.add(place)
                del self._wanted[place]
                self._tell(self._receiver.began, order, offset)

    def _look_up(self, consumer: Consumer) -> None:
        """Put offsets in the place of ends and beginnings."""
        asked = [TopicPartition(*place, wanted.offset) for place, wanted in self._wanted.items()]
        asked = [place for place in asked if place.offset < 0]
        if not asked:
            return
        try:  # the "times" of an end and a beginning have the same numbers in the protocol as their offsets
            found = consumer.offsets_for_times(asked, timeout=ANSWER_S)
        except KafkaException as error:
            _logger.debug("where partitions end is asked for again: %s", error)
            return
        for answer in found:
            place = Place(answer.topic, answer.partition)
            if answer.error is None and answer.offset >= 0:
                self._wanted[place] = self._wanted[place]._replace(offset=answer.offset)
            else:
                _logger.debug("the end of %s is asked for again: %s", place, answer.error)

    def _tell(self, told: Callable[..., None], *what: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(self._unless_closing, told, *what)
        except RuntimeError:  # the loop has ended without a close
            self._closing = True

    # --- on the loop again ---

    def _unless_closing(self, told: Callable[..., None], *what: Any) -> None:
        if not self._closing:
            told(*what)

    def _hand_over(self, messages: list[Message]) -> None:
        self._room.release()
        self._receiver.took(messages)
