"""The log on Kafka as coordinators see it.

Four consumers and, as long as nothing goes wrong, two producers::

    group      subscribed, all paused     who should try to own a partition; questions to the broker
    follower   assigned by hand           what poll brings: commands, history, beats
    committed  assigned by hand           commands of others' transactions, where these are followed
    reader     assigned by hand           bounded reads: restores
    history    idempotent, gapless        ordered appenders (see ``appender``)
    outgoing   idempotent                 unordered appenders, one producer each
    publisher  transactional              business events, one per partition that has some, on its own thread

One thread does everything; librdkafka's own threads move the bytes. :meth:`KafkaLog.poll` waits in the
follower, for what has to be fast arrives there: commands, and own turns that come back. It looks at all else
between slices of that wait. A wait of librdkafka can be ended from outside only by an exception in one of
its callbacks, and then records that it had in hand are lost; hence slices.
"""

from __future__ import annotations

from time import monotonic

from confluent_kafka import OFFSET_END, KafkaError, KafkaException, TopicPartition

from orchestrator.log.kafka.appender import KafkaAppender, Producers
from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.fetch import Follower, Positions, Spot
from orchestrator.log.kafka.group import GroupMember
from orchestrator.log.kafka.places import ANSWER_S, Places
from orchestrator.log.kafka.publisher import KafkaPublisher, KafkaPublishers
from orchestrator.log.kafka.reader import Reader
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.kafka.undertaker import Undertaker
from orchestrator.log.port import Polled, Record
from orchestrator.log.topics import COMMANDS, COMMANDS_TX

SLICE_S = 0.01
"""Deliveries, changes of membership and :meth:`KafkaLog.wake` are seen after so long at the latest. To look
100 times per second costs an idle process about 1 % of a CPU. Nothing waits for a delivery that went well:
most come between two records, and to make a step for each would double the steps."""

SHOW_LAG_S = 5.0
"""Positions are committed so often, for display."""


class KafkaLog:
    """Implements :class:`orchestrator.log.port.Log`.

    Args:
        settings: the cluster and the namespace, whose topics must exist.
        member: names this process to the broker's operators.
        clients: makes the clients; tests hand in those that fail.

    Raises:
        ConfigError: the Kafka client refuses a setting.
    """

    def __init__(self, settings: KafkaSettings, *, member: str, clients: Clients | None = None) -> None:
        made = clients or Clients(settings, member)
        self._health = made.health
        self._undertaker = Undertaker()
        self._group = GroupMember(made, self._health)
        self._places = Places(settings, self._group.consumer)
        self._follower = Follower(made.follower(), self._places, self._health)
        self._clients = made
        self._committed: Follower | None = None
        self._reader = Reader(made.reader, self._places, self._health)
        self._producers = Producers(made, self._places, self._health, self._undertaker)
        self._admin = made.admin()
        self._publishers = KafkaPublishers(made)
        self._woken = False
        self._closed = False
        self._shown_s = monotonic()

    def trouble(self) -> str:
        """What is wrong with the cluster now, in one sentence for people; "" if nothing is."""
        return self._health.trouble(self._producers.owed_since_s())

    def partitions(self, topic: str) -> int:
        """Number of partitions of a topic.

        Raises:
            LogError: there is no such topic.
            Unavailable: the broker does not answer.
        """
        return self._places.count(topic)

    # --- membership ---

    def join(self) -> None:
        """Join the group; assignments come by poll."""
        self._group.join()

    def leave(self) -> None:
        """Leave the group at once; revocations come by the next poll."""
        self._group.leave()

    def confirm_membership(self, partition: int) -> bool:
        """Prove by a commit to the group, which takes 2 s at most, that the partition is this member's."""
        position = self._follower.positions.next_offset(Spot(COMMANDS, partition))
        return self._group.confirm(partition, position)

    # --- appending ---

    def appender(self, *, ordered: bool) -> KafkaAppender:
        """A new appender."""
        return self._producers.appender(ordered=ordered)

    def publisher(self, partition: int) -> KafkaPublisher:
        """A publisher of the business events of a partition, not opened yet."""
        return self._publishers.publisher(partition)

    def refusal_of_topic(self, topic: str, size_bytes: int) -> str:
        """Why a user's topic would refuse a record of that size, as far as is known now."""
        return self._publishers.refusal_of_topic(topic, size_bytes)

    # --- reading ---

    def seek(self, topic: str, partition: int, offset: int) -> None:
        """Bring the records of a partition from ``offset`` on by poll.

        Raises:
            LogError: there is no such topic or partition.
            Unavailable: the broker does not answer.
        """
        if topic == COMMANDS_TX and self._committed is None:
            consumer = self._clients.follower_of_transactions()
            self._committed = Follower(consumer, self._places, self._health)
        self._positions(topic).seek(Spot(topic, partition), offset)

    def unseek(self, topic: str, partition: int) -> None:
        """Bring no more records of a partition."""
        self._positions(topic).drop(Spot(topic, partition))

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """Up to ``limit`` durable records from ``offset`` on; empty only at the end.

        Raises:
            LogError: there is no such topic or partition, or the log lost records.
            Unavailable: the broker does not answer.
        """
        return self._reader.read(Spot(topic, partition), offset, limit)

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last durable record.

        Raises:
            LogError: there is no such topic or partition.
            Unavailable: the broker does not answer.
        """
        return self._places.bounds(topic, partition)[1]

    def poll(self, timeout_s: float) -> Polled:
        """Send what was appended, wait for something to report for at most ``timeout_s``.

        Raises:
            LogError: the log lost records that were there.
        """
        deadline_s = monotonic() + timeout_s
        waited = False
        records: list[Record] = []
        while True:
            self._producers.send()
            self._producers.serve()
            self._group.serve()
            settled = self._producers.settled and (waited or self._producers.failed)
            if records or settled or self._group.has_news or self._woken:
                records = records or self._fetch(0)
                break
            left_s = deadline_s - monotonic()
            records = self._fetch(max(0.0, min(left_s, SLICE_S)))
            waited = True
            if left_s <= 0:
                break
        self._woken = False
        self._housekeep()
        return Polled(records=records, deliveries=self._producers.take(), memberships=self._group.take())

    def wake(self) -> None:
        """End a running or the next poll early, within 10 ms."""
        self._woken = True

    def delete_records(self, topic: str, partition: int, before_offset: int) -> None:
        """Let go of all records below an offset. What fails is said once: the next call does it all.

        Raises:
            LogError: there is no such topic or partition.
            Unavailable: the broker does not answer.
        """
        place = self._places.at(topic, partition, before_offset)
        try:
            try:
                self._delete_before(place)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.OFFSET_OUT_OF_RANGE:
                    raise
                place.offset = OFFSET_END
                self._delete_before(place)
        except KafkaException as error:
            self._health.complain(error.args[0], f"deleting records of {topic}-{partition}")

    def close(self) -> None:
        """Leave the group and release everything, within 3 s. What was under way may still land."""
        if self._closed:
            return
        self._closed = True
        self._publishers.close()
        self._producers.send()
        self._producers.close()
        committed = self._committed.consumer if self._committed is not None else None
        for consumer in (self._group.consumer, self._follower.consumer, committed, self._reader.consumer):
            if consumer is not None:
                self._undertaker.close(consumer)
        self._undertaker.wait()

    def _positions(self, topic: str) -> Positions:
        """Of the consumer that follows a topic."""
        committed = self._committed if topic == COMMANDS_TX else None
        return (committed or self._follower).positions

    def _fetch(self, timeout_s: float) -> list[Record]:
        """What came; waits for what has to be fast, and looks at what transactions held up anyway."""
        records = self._follower.fetch(timeout_s)
        return records if self._committed is None else records + self._committed.fetch(0)

    def _delete_before(self, place: TopicPartition) -> None:
        (deleting,) = self._admin.delete_records([place], request_timeout=ANSWER_S).values()
        deleting.result()

    def _housekeep(self) -> None:
        now_s = monotonic()
        if now_s - self._shown_s < SHOW_LAG_S:
            return
        self._shown_s = now_s
        self._reader.rest()
        positions = self._follower.positions
        self._group.show_positions(
            {
                spot.partition: positions.next_offset(spot) or 0
                for spot in positions.spots()
                if spot.topic == COMMANDS
            }
        )
