"""The Kafka clients of each role, and what each must be told for its part of the contract.

Whatever correctness rests on is ours; the user's options win over the rest. Tests hand in a
:class:`Clients` whose producers lose, refuse and delay: that is below the adapter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from orchestrator.log.kafka.health import Health
from orchestrator.log.kafka.settings import KafkaSettings, refused

SESSION_MS = 6_000
"""A member that was killed is missed after so long: most of a takeover's 10 s."""

HEARTBEAT_MS = 500
"""Members hear of a rebalance by the answers to these. A partition that moves is nobody's for one or two of
them: revoked in one rebalance, assigned in the next."""

FETCH_WAIT_MS = 50
"""A request for records waits so long at the broker if there are none, and a partition that is assigned
meanwhile waits with it. So this is the delay of a claim; an idle coordinator sends 20 requests per second."""

LISTEN_WAIT_MS = 250
"""The same for clients and workers, which are many, and wait for the first record after an end once."""

READ_WAIT_MS = 10
"""The same for bounded reads, which are never idle."""

READ_AHEAD_RECORDS = 5_000
READ_AHEAD_KBYTES = 16 * 1024
"""Fetched in advance for a bounded read: ten slices of a restore, and a bound of memory."""

MAX_BATCH_BYTES = 2 * 1024 * 1024
"""What a producer takes: the largest record that the topics take, and its frame."""

SILENCE_MS = 10_000
"""Of clients and workers: a connection that owes an answer for so long is given up and made anew."""

MISSING_MS = 10_000
"""Of clients and workers: a topic that is not there for so long will not come; what was for it is refused."""

CLIENT_TIMEOUT_MS = 30_000
"""What clients and workers send is given up after so long; nobody waits for it any more."""

CLIENT_BATCH_BYTES = 256 * 1024
"""Far below what a topic takes, so that a record that is too large is alone in its batch."""

OUTGOING_TIMEOUT_MS = 20_000
"""What leaves is given up after so long. The coordinator's own deadline comes first; this one bounds what
piles up of answers and beats, which nobody waits for, while the broker is away."""

_EVERYWHERE: Mapping[str, Any] = {
    "log_level": 2,  # what is wrong is said by Health, once: librdkafka repeats it for each client and second
    "socket.nagle.disable": True,
    "socket.keepalive.enable": True,
    "reconnect.backoff.max.ms": 1_000,  # a broker that is back is found within a second, not ten
    "retry.backoff.ms": 20,
    "topic.metadata.refresh.fast.interval.ms": 50,
}

_PRODUCER: Mapping[str, Any] = {"linger.ms": 0, "message.max.bytes": MAX_BATCH_BYTES}

_HISTORY: Mapping[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "enable.gapless.guarantee": True,
    # Gapless does not cover this timeout: records in the middle vanished and later ones landed. The
    # deadline is the owner's, who abandons the appender.
    "message.timeout.ms": 0,
}

_OUTGOING: Mapping[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "enable.gapless.guarantee": False,  # one refused record must not end the others
    "message.timeout.ms": OUTGOING_TIMEOUT_MS,
}

_SENDER: Mapping[str, Any] = {
    "batch.size": CLIENT_BATCH_BYTES,
    "socket.timeout.ms": SILENCE_MS,
    "request.timeout.ms": SILENCE_MS,
    "topic.metadata.propagation.max.ms": MISSING_MS,
}

_SENT: Mapping[str, Any] = {
    "acks": "all",
    "message.timeout.ms": CLIENT_TIMEOUT_MS,
    # What is repeated may land twice, and whoever decides it knows it by its request id. What must hold is
    # the order, and that does with one request under way. An idempotent producer has to be given an id
    # first, which takes librdkafka half a second: as long as a whole command on the command line.
    "enable.idempotence": False,
    "max.in.flight.requests.per.connection": 1,
}

TRANSACTION_MS = 15_000
"""A transaction whose owner died and has no successor is aborted by the cluster after so long; until then
readers of the topics in it, who read committed records, wait. Longer than what is asked in it may take."""

_PUBLISHER: Mapping[str, Any] = {
    "transaction.timeout.ms": TRANSACTION_MS,
    # A coordinator of transactions that is not done with the last one says so to each commit and to each
    # beginning; with the usual delays a transaction takes 104 ms.
    "retry.backoff.ms": 1,
    "retry.backoff.max.ms": 2,
    "partitioner": "murmur2_random",  # as Java's clients place a key
}

_CONSUMER: Mapping[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",  # an offset that is not there is never replaced in silence
    "isolation.level": "read_uncommitted",
    "check.crcs": True,
    "allow.auto.create.topics": False,
}

_FOLLOWER: Mapping[str, Any] = {
    "fetch.wait.max.ms": FETCH_WAIT_MS,
    "fetch.min.bytes": 1,
    "fetch.queue.backoff.ms": 10,
    "fetch.error.backoff.ms": 100,
}

_LISTENER: Mapping[str, Any] = {
    **_FOLLOWER,
    "fetch.wait.max.ms": LISTEN_WAIT_MS,
    "socket.timeout.ms": SILENCE_MS,
}

_READER: Mapping[str, Any] = {
    **_FOLLOWER,
    "fetch.wait.max.ms": READ_WAIT_MS,
    "queued.min.messages": READ_AHEAD_RECORDS,
    "queued.max.messages.kbytes": READ_AHEAD_KBYTES,
}

_GROUP: Mapping[str, Any] = {
    "group.protocol": "classic",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": SESSION_MS,
    "heartbeat.interval.ms": HEARTBEAT_MS,
}

C = TypeVar("C")

_client_log = logging.getLogger("orchestrator.log.kafka.client")


class Clients:
    """Makes clients of one cluster, under one member's name.

    Raises:
        ConfigError: (all methods) the Kafka client refuses a setting.
    """

    def __init__(self, settings: KafkaSettings, member: str) -> None:
        self.settings = settings
        self.health = Health(settings.bootstrap)
        self._member = member

    def history_producer(self) -> Producer:
        """For records whose order counts. One that failed is of no use any more."""
        return self._make(Producer, _PRODUCER, _HISTORY)

    def outgoing_producer(self) -> Producer:
        """For records that may fail alone."""
        return self._make(Producer, _PRODUCER, _OUTGOING)

    def lone_producer(self) -> Producer:
        """As the outgoing one, but each record is sent in a batch of its own."""
        return self._make(Producer, {**_PRODUCER, "batch.num.messages": 1}, _OUTGOING)

    def sender(self, backlog_records: int) -> Producer:
        """For what clients and workers send. More than ``backlog_records`` that wait are turned away."""
        return self._make(
            Producer, {**_PRODUCER, **_SENDER, "queue.buffering.max.messages": backlog_records}, _SENT
        )

    def lone_sender(self) -> Producer:
        """The same, but each record is sent in a batch of its own."""
        return self._make(Producer, {**_PRODUCER, **_SENDER, "batch.num.messages": 1}, _SENT)

    def listener(self) -> Consumer:
        """For what clients and workers read, as it comes. Somebody without any right on the group may."""
        return self._make(Consumer, _LISTENER, self._in_group(_CONSUMER))

    def publisher(self, partition: int, *, single: bool, timeout_ms: int) -> Producer:
        """For business events of a partition, in transactions; if ``single``, each in a batch of its own."""
        identity = f"{self.settings.publishers}{partition}"
        own = {"transactional.id": identity, "message.timeout.ms": timeout_ms}
        if single:
            own["batch.num.messages"] = 1
        return self._make(Producer, _PRODUCER, {**_PUBLISHER, **own})

    def mark_reader(self) -> Consumer:
        """For the marks of publishers, of which only the committed ones count."""
        own = {"enable.partition.eof": True, "isolation.level": "read_committed"}
        return self._make(Consumer, _READER, self._in_group({**_CONSUMER, **own}))

    def follower(self) -> Consumer:
        """For what is followed as it comes."""
        return self._make(Consumer, _FOLLOWER, self._in_group(_CONSUMER))

    def follower_of_transactions(self) -> Consumer:
        """For what is followed as it is committed."""
        committed = {**_CONSUMER, "isolation.level": "read_committed"}
        return self._make(Consumer, _FOLLOWER, self._in_group(committed))

    def reader(self) -> Consumer:
        """For bounded reads: it also tells where a partition ends."""
        return self._make(Consumer, _READER, self._in_group({**_CONSUMER, "enable.partition.eof": True}))

    def group_member(self, on_commit: Callable[[KafkaError | None, list[TopicPartition]], None]) -> Consumer:
        """For membership, and for questions: as it fetches nothing, no waiting fetch holds its answers up."""
        return self._make(Consumer, {}, self._in_group({**_CONSUMER, **_GROUP, "on_commit": on_commit}))

    def admin(self) -> AdminClient:
        """For deleting records."""
        return self._make(AdminClient, {}, {})

    def _in_group(self, required: Mapping[str, Any]) -> Mapping[str, Any]:
        """One group for all consumers (only one joins it), so that one right on it suffices."""
        return {**required, "group.id": self.settings.group}

    def _make(
        self,
        kind: Callable[[dict[str, Any]], C],
        defaults: Mapping[str, Any],
        required: Mapping[str, Any],
    ) -> C:
        # librdkafka knows some settings by two names, and the last one given wins: so ours come last.
        theirs = {name: value for name, value in self.settings.client().items() if name not in required}
        config = {
            **_EVERYWHERE,
            **defaults,
            **theirs,
            **required,
            "client.id": self._member,
            "error_cb": self.health.on_error,
            "logger": _client_log,
        }
        try:
            return kind(config)
        except KafkaException as error:
            raise refused(error) from error
