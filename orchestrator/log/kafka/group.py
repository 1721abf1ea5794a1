"""Membership in the group of coordinators: which partitions of ``commands`` this member should try to own.

The consumer subscribes to ``commands`` with everything paused, so that it brings no record: records are the
follower's. It is polled in every step, for changes come by callbacks from there. Group offsets decide
nothing: they show how far behind a group is, and a commit proves membership.
"""

from __future__ import annotations

import struct
from itertools import count
from time import monotonic

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.health import Health
from orchestrator.log.port import Change, Membership

CONFIRM_S = 2.0
"""A proof of membership waits so long for the group's coordinator; without an answer it is none."""

CONFIRM_SLICE_S = 0.01
"""The answer is looked for so often: it comes by a callback, which does not end the client's wait."""

_GENERATION = slice(7, 11)
"""Where the generation stands in librdkafka's opaque group metadata: behind ``CGMDv2:``."""

# Stands for an answer that did not come.
_FAILED = KafkaError(KafkaError._FAIL)


def generation_of(metadata: bytes) -> int:
    """The generation in what ``consumer_group_metadata()`` returns; -1 outside of a group."""
    (generation,) = struct.unpack("=i", metadata[_GENERATION])
    return int(generation)


class GroupMember:
    """One member of the group. Changes of its partitions are collected for :meth:`take`."""

    def __init__(self, clients: Clients, health: Health) -> None:
        self.consumer: Consumer = clients.group_member(self._on_commit)
        self._topic = clients.settings.topic("commands")
        self._health = health
        self._owned: dict[int, int] = {}
        """The partitions assigned to this member, and the generation since when."""
        self._news: list[Membership] = []
        self._joined = False
        self._proofs = count()
        self._answers: dict[str, KafkaError | None] = {}

    def join(self) -> None:
        """Join the group; assignments come while it is served."""
        if not self._joined:
            self._joined = True
            self.consumer.subscribe(
                [self._topic],
                on_assign=self._on_assign,
                on_revoke=self._on_revoke,
                on_lost=self._on_lost,
            )

    def leave(self) -> None:
        """Leave the group at once; all partitions are revoked."""
        if self._joined:
            self._joined = False
            self._release(Change.REVOKED, list(self._owned))
            self.consumer.unsubscribe()

    def serve(self) -> None:
        """Take part in the group: rebalances go on only while this is called again and again."""
        message = self.consumer.poll(0)
        if message is not None and (error := message.error()) is not None:
            self._health.complain(error, "the group of coordinators")

    @property
    def has_news(self) -> bool:
        """Whether :meth:`take` has something to hand out."""
        return bool(self._news)

    def take(self) -> list[Membership]:
        """The changes since the last call."""
        taken, self._news = self._news, []
        return taken

    def confirm(self, partition: int, position: int | None) -> bool:
        """Prove by a round trip that the partition is this member's; its lag is shown from ``position`` on.

        The group refuses commits of members that it has given up, and of older generations. Without a
        position it stays as it is shown.
        """
        if partition not in self._owned:
            return False
        proof, deadline_s = str(next(self._proofs)), monotonic() + CONFIRM_S
        place = TopicPartition(self._topic, partition)
        try:
            if position is None:
                (shown,) = self.consumer.committed([place], timeout=CONFIRM_S)
                position = shown.offset
            proven_at = TopicPartition(self._topic, partition, max(0, position), proof)
            self.consumer.commit(offsets=[proven_at], asynchronous=True)
        except KafkaException:
            return False
        while proof not in self._answers and monotonic() < deadline_s:
            message = self.consumer.poll(CONFIRM_SLICE_S)
            if message is not None and (error := message.error()) is not None:
                self._health.complain(error, "the group of coordinators")
        proven = self._answers.get(proof, _FAILED) is None
        self._answers.clear()
        return proven and partition in self._owned

    def show_positions(self, positions: dict[int, int]) -> None:
        """Commit how far each partition is consumed, for those who watch the lag. Waits for nothing."""
        places = [
            TopicPartition(self._topic, partition, position)
            for partition, position in positions.items()
            if partition in self._owned
        ]
        if places:
            self.consumer.commit(offsets=places, asynchronous=True)

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        at_end = [TopicPartition(place.topic, place.partition, OFFSET_END) for place in places]
        consumer.incremental_assign(at_end)
        consumer.pause(at_end)
        generation = generation_of(consumer.consumer_group_metadata())
        for place in places:
            self._owned[place.partition] = generation
            self._news.append(Membership(Change.ASSIGNED, place.partition, generation))

    def _on_revoke(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        self._release(Change.REVOKED, [place.partition for place in places])

    def _on_lost(self, _consumer: Consumer, places: list[TopicPartition]) -> None:
        self._release(Change.LOST, [place.partition for place in places])

    def _release(self, change: Change, partitions: list[int]) -> None:
        for partition in partitions:
            generation = self._owned.pop(partition, None)
            if generation is not None:
                self._news.append(Membership(change, partition, generation))

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        for place in places:
            if place.metadata:
                self._answers[place.metadata] = error or place.error
