"""The simulated log as clients and workers see it: typed messages, stepped by hand instead of by asyncio."""

from __future__ import annotations

from typing import Any, TypeVar

from orchestrator.log.aio import DeliveredBeat, DeliveredTask
from orchestrator.log.port import Delivery
from orchestrator.log.simulated import SimulatedCluster, SimulatedParty
from orchestrator.log.typed import (
    BEAT,
    INBOX,
    REPLY,
    Channel,
    Feed,
    Stream,
    beat_record,
    command_record,
    least_used,
)
from orchestrator.protocol.commands import Command
from orchestrator.protocol.tasks import Reply, WorkerBeat

T = TypeVar("T")


class SimulatedClientLog:
    """What ``aio.AioLog`` is to asyncio, this is to a simulator.

    Messages travel by :meth:`poll` only; streams are emptied by ``take()``. Sends are not ordered: they may
    be lost, repeated, delayed and refused, as the cluster's faults say.
    """

    def __init__(self, cluster: SimulatedCluster, name: str) -> None:
        self._party = SimulatedParty(cluster, cluster.incarnation(name))
        self._cluster = cluster
        self._appender = self._party.appender(ordered=False)
        self._feeds: dict[tuple[str, int], Feed[Any]] = {}

    def send(self, command: Command, token: Any = None) -> None:
        """Append a command to the partition of its workflow id; its outcome comes by a later poll."""
        self._appender.post(command_record(command, self._cluster.partitions), token)

    def beat(self, beat: WorkerBeat, token: Any = None) -> None:
        """Append a beat; its outcome comes by a later poll."""
        self._appender.post(beat_record(beat), token)

    def open_inbox(self, worker: str) -> Stream[DeliveredTask]:
        """The tasks for a worker incarnation, from the end of a partition."""
        return self._open(INBOX, worker)

    def open_replies(self, client_id: str) -> Stream[Reply]:
        """The replies to a client, from the end of a partition."""
        return self._open(REPLY, client_id)

    def open_beats(self) -> Stream[DeliveredBeat]:
        """All beats, from the end."""
        return self._open(BEAT, "")

    def poll(self) -> list[Delivery]:
        """Send, receive, and report what became of earlier sends."""
        deliveries = self._party.exchange()
        for (topic, partition), feed in self._feeds.items():
            feed.take(self._party.fetch(topic, partition, feed.position))
        return deliveries

    def reconnect(self) -> None:
        """Give up what was not acknowledged, as a client does whose connection is silent."""
        self._appender.abandon()
        self._appender = self._party.appender(ordered=False)

    def die(self) -> None:
        """The process is gone, with all its memory; what is under way may still land."""
        self._party.die()

    def _open(self, channel: Channel[T], name: str) -> Stream[T]:
        topic = channel.topic
        used = {p: feed.readers for (t, p), feed in self._feeds.items() if t == topic}
        partition = least_used(name, used, self._cluster.count(topic))
        feed = self._feeds.get((topic, partition))
        if feed is None:
            end = self._cluster.partition(topic, partition).end
            feed = self._feeds[topic, partition] = Feed(channel, partition, end)
        return Stream(feed, name)
