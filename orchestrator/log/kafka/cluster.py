"""A cluster, asked about its topics: every answer comes in bounded time, or is one clear error."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, wait
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from orchestrator.errors import ConfigError, LogError, OrchestratorError, Unavailable
from orchestrator.log.kafka.settings import KafkaSettings, refused

_T = TypeVar("_T")

ANSWER_S = 8.0
"""How long a broker is waited for: it may be starting beside us. A connection takes milliseconds."""

OPERATION_S = 30.0
"""Making topics waits for all replicas, which takes seconds on a busy cluster."""

POLL_S = 0.1
"""How often a waiting client is given the chance to say what went wrong."""

_LOGIN = frozenset(
    {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM}
)
"""Waiting does not make a wrong password right."""

_DENIED = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)

_AWAY = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError.REQUEST_TIMED_OUT,
    }
)

_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,  # who leads the partition that a group's offsets are on
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.UNKNOWN_LEADER_EPOCH,  # a topic so new that the broker itself has yet to hear of it
        KafkaError._NOENT,
    }
)

_MISSING = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)


class Found(NamedTuple):
    """A topic as it is. ``allowed``: what we may do with it, such as ``"READ"``."""

    topic_id: str
    partitions: int
    replicas: int
    allowed: frozenset[str]


class Wanted(NamedTuple):
    """A topic to be made; ``replicas`` -1 is the cluster's default."""

    name: str
    partitions: int
    replicas: int
    settings: Mapping[str, str]


class Cluster:
    """A connection for set-up and checks. All methods raise ``Unavailable`` if no answer came in time, and
    ``ConfigError`` if the cluster refuses.

    Args:
        settings: where it is. Topics are named in full here, with the namespace's prefix.
        answer_s: how long an answer is waited for.
    """

    def __init__(self, settings: KafkaSettings, *, answer_s: float = ANSWER_S) -> None:
        self._settings = settings
        self._answer_s = answer_s
        self._said = ""
        self._login_failed = False
        # librdkafka would write to stderr what is raised here as one message.
        self._config = settings.client(error_cb=self._on_error, log_level=0)
        self._admin = AdminClient(self._config)
        description = self._answer(self._admin.describe_cluster(request_timeout=answer_s), "connect")
        self.cluster_id: str = description.cluster_id or ""
        self.brokers: int = len(description.nodes)

    def topics(self, names: Collection[str]) -> dict[str, Found]:
        """Those of the topics that exist."""
        asked = self._admin.describe_topics(
            TopicCollection(list(names)), include_authorized_operations=True, request_timeout=self._answer_s
        )
        found = {}
        for name, future in asked.items():
            try:
                topic = self._answer(future, f"see {name}")
            except _NotThere:
                continue
            allowed = frozenset(AclOperation(one).name for one in topic.authorized_operations or ())
            replicas = min((len(one.replicas) for one in topic.partitions), default=0)
            found[name] = Found(_shown(topic.topic_id), len(topic.partitions), replicas, allowed)
        return found

    def rights_on_group(self, group: str) -> frozenset[str] | None:
        """What we may do with a consumer group, which need not exist; None if the cluster does not say."""
        try:
            return self._patiently(lambda: self._rights_on_group(group), self._answer_s)
        except _Denied:
            return frozenset()

    def _rights_on_group(self, group: str) -> frozenset[str] | None:
        asked = self._admin.describe_consumer_groups(
            [group], include_authorized_operations=True, request_timeout=self._answer_s
        )
        allowed = self._answer(asked[group], f"see the group {group}").authorized_operations
        return frozenset(AclOperation(one).name for one in allowed) if allowed else None

    def settings_of(self, names: Collection[str]) -> dict[str, dict[str, str]]:
        """The settings of topics; of a topic whose settings we may not see, none."""
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        asked = self._admin.describe_configs(resources, request_timeout=self._answer_s) if resources else {}
        found = {}
        for resource, future in asked.items():
            try:
                entries = self._answer(future, f"see the settings of {resource.name}")
            except _Denied:
                entries = {}
            found[resource.name] = {entry.name: str(entry.value) for entry in entries.values()}
        return found

    def create(self, wanted: Iterable[Wanted]) -> list[str]:
        """Make topics, and wait until they are known; returns those that did not exist before."""
        new = [NewTopic(one.name, one.partitions, one.replicas, config=dict(one.settings)) for one in wanted]
        if not new:
            return []
        asked = self._admin.create_topics(new, operation_timeout=OPERATION_S, request_timeout=OPERATION_S)
        made = []
        for name, future in asked.items():
            try:
                self._answer(future, f"create {name}", OPERATION_S)
                made.append(name)
            except _AlreadyThere:
                continue  # somebody else was faster
        # A new topic is not known by all brokers at once, and has no leaders at first.
        self._patiently(lambda: self._offsets({one.topic: one.num_partitions for one in new}), OPERATION_S)
        return made

    def delete(self, names: Collection[str]) -> None:
        """Delete topics."""
        if names:
            asked = self._admin.delete_topics(
                list(names), operation_timeout=OPERATION_S, request_timeout=OPERATION_S
            )
            for name, future in asked.items():
                self._answer(future, f"delete {name}", OPERATION_S)

    def records(self, partitions: Mapping[str, int]) -> dict[str, int]:
        """How many offsets each topic holds, from the first that is there to the end."""
        return self._patiently(lambda: self._offsets(partitions), self._answer_s)

    def _offsets(self, partitions: Mapping[str, int]) -> dict[str, int]:
        places = [TopicPartition(name, p) for name, count in partitions.items() for p in range(count)]
        counts = dict.fromkeys(partitions, 0)
        for sign, spec in ((1, OffsetSpec.latest()), (-1, OffsetSpec.earliest())):
            asked = self._admin.list_offsets(dict.fromkeys(places, spec), request_timeout=self._answer_s)
            for place, future in asked.items():
                counts[place.topic] += sign * self._answer(future, f"read {place.topic}").offset
        return counts

    def read(self, topic: str) -> dict[bytes, bytes]:
        """The last value of each key on a compacted topic of one partition."""
        config = self._settings.client(
            group_id=f"{self._settings.namespace}.set-up",  # never joined, nothing committed
            enable_auto_commit=False,
            enable_partition_eof=True,
            fetch_wait_max_ms=10,  # the end is noticed by an empty answer
            auto_offset_reset="error",
            isolation_level="read_uncommitted",
            error_cb=self._on_error,
            log_level=0,
        )
        try:
            consumer = Consumer(config)
        except KafkaException as error:
            raise refused(error) from error
        try:
            return self._patiently(lambda: self._read(consumer, topic), self._answer_s)
        finally:
            consumer.close()

    def _read(self, consumer: Consumer, topic: str) -> dict[bytes, bytes]:
        try:
            start, _ = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=self._answer_s)
        except KafkaException as error:
            raise self._explained(error.args[0], f"read {topic}") from error
        consumer.assign([TopicPartition(topic, 0, start)])
        values: dict[bytes, bytes] = {}
        deadline_s = time.monotonic() + self._answer_s
        while time.monotonic() < deadline_s:
            record = consumer.poll(POLL_S)
            if record is None:
                continue
            if (trouble := record.error()) is not None:
                if trouble.code() == KafkaError._PARTITION_EOF:
                    return values
                if record.topic() is None:  # of the group: clients and workers need no right on one
                    continue
                raise self._explained(trouble, f"read {topic}")
            key, value = bytes(record.key() or b""), record.value()
            if value is None:
                values.pop(key, None)
            else:
                values[key] = bytes(value)
        raise self._away(f"read {topic}")

    def write(self, topic: str, key: bytes, value: bytes) -> None:
        """Append a record, durably."""
        producer = Producer(
            self._settings.client(
                acks="all",
                enable_idempotence=True,
                message_timeout_ms=int(self._answer_s * 1_000),
                error_cb=self._on_error,
                log_level=0,
            )
        )
        reports: list[KafkaError | None] = []
        producer.produce(topic, value, key, on_delivery=lambda error, _: reports.append(error))
        producer.flush(self._answer_s + 1)
        if not reports:
            raise self._away(f"write to {topic}")
        if reports[0] is not None:  # never compared with ==: KafkaError breaks on None
            raise self._explained(reports[0], f"write to {topic}")

    # --- what goes wrong ---

    def _on_error(self, error: KafkaError) -> None:
        """librdkafka says in passing what its answers do not: why there is no connection."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._said = error.str()
        self._login_failed |= error.code() in _LOGIN

    def _patiently(self, ask: Callable[[], _T], for_s: float) -> _T:
        """Ask again while partitions have no leader."""
        deadline_s = time.monotonic() + for_s
        while True:
            try:
                return ask()
            except _NotYet:
                if time.monotonic() > deadline_s:
                    raise
            self._admin.poll(POLL_S)
            self._admin = AdminClient(self._config)  # a client goes on believing that there is no leader

    def _answer(self, future: Future[Any], what: str, answer_s: float | None = None) -> Any:
        deadline_s = time.monotonic() + (self._answer_s if answer_s is None else answer_s)
        while not wait([future], POLL_S).done:
            self._admin.poll(0)
            if self._login_failed or time.monotonic() > deadline_s:
                raise self._away(what)
        try:
            return future.result()
        except KafkaException as error:
            raise self._explained(error.args[0], what) from error

    def _explained(self, error: KafkaError, what: str) -> OrchestratorError:
        code, where = error.code(), self._settings.bootstrap
        if code in _MISSING:
            return _NotThere(f"cannot {what}: there is no such topic")
        if code == KafkaError.TOPIC_ALREADY_EXISTS:
            return _AlreadyThere(f"cannot {what}: it is there already")
        if code in _PASSING:
            return _NotYet(
                f"cannot {what} at {where}: a partition has no leader now ({error.name()}); try again"
            )
        if code in _DENIED:
            return _Denied(
                f"the cluster at {where} does not let us {what} ({error.name()}); an ACL is missing: rights "
                f"on all topics with the prefix '{self._settings.namespace}.' are expected"
            )
        if code in _AWAY or code in _LOGIN:
            self._login_failed |= code in _LOGIN
            return self._away(what)
        return ConfigError(f"the cluster at {where} refuses to {what}: {error.str()} ({error.name()})")

    def _away(self, what: str) -> OrchestratorError:
        self._admin.poll(0)
        where = self._settings.bootstrap
        if self._login_failed:
            return ConfigError(
                f"the cluster at {where} refuses the login: {self._said}; check the settings of Kafka: "
                f"security.protocol, sasl.mechanism, sasl.username, sasl.password"
            )
        return Unavailable(
            f"no Kafka answers at {where} within {self._answer_s:g} s, so we cannot {what}: "
            f"{self._said or 'nothing came back'}; is it a broker, does it run, and are port "
            f"and security.protocol right?"
        )


def _shown(topic_id: object) -> str:
    """As Kafka's own tools show it; confluent-kafka writes the other kind of base64."""
    return str(topic_id).replace("+", "-").replace("/", "_")


class _NotThere(LogError):
    """There is no such topic."""


class _NotYet(Unavailable):
    """A partition changes its leader, or is so new that it has none."""


class _AlreadyThere(LogError):
    """The topic exists."""


class _Denied(ConfigError):
    """The cluster knows who we are, and says no."""
