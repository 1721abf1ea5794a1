"""Kafka for the suite: a namespace on a shared broker, and faults between the clients and it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from orchestrator.log.faults import Fate
from orchestrator.log.kafka.admin import config_of
from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.port import Log, Record
from orchestrator.log.topics import EMBEDDED_PARTITIONS, TOPICS
from tests.conformance.log.harness import PATIENCE_S, Harness, ScriptedFaults, read_all

CLEANER_MS = 100
"""How often the broker looks for something to compact; every 15 s, if nobody asks."""

EASY_TO_CLEAN = {
    "segment.ms": "1",  # the cleaner spares the newest segment: so each append begins one
    "min.cleanable.dirty.ratio": "0.0",
    "delete.retention.ms": "0",
}
"""For history: so that it can be compacted at a test's word, which is ``min.compaction.lag.ms`` 0."""

OnDelivery = Callable[[KafkaError | None, Any], None]


class ScriptedProducer(Producer):
    """A producer on a bad way to the broker. What happens to it is told as librdkafka tells it."""

    def __init__(self, config: dict[str, Any], wire: Wire) -> None:
        super().__init__(config)
        self._wire = wire
        self._ordered = bool(config.get("enable.gapless.guarantee"))
        self._reports: list[tuple[OnDelivery, KafkaError]] = []
        self._under_way = 0
        self._doomed = self._told = False
        self.purged = False

    def produce(self, topic: str, value: bytes | None, **record: Any) -> None:  # type: ignore[override]
        on_delivery = record.pop("on_delivery")
        fate = self._wire.faults.fate(topic.rpartition(".")[2], record["partition"], record["key"])
        if self._doomed:
            self._reports.append((on_delivery, KafkaError(KafkaError._PURGE_QUEUE)))
        elif fate in ERRORS:
            self._reports.append((on_delivery, KafkaError(ERRORS[fate])))
            self._doomed = self._ordered
        else:
            self._under_way += 1
            copies = 2 if fate is Fate.DUPLICATE and not self._ordered else 1
            lost = KafkaError(KafkaError._TIMED_OUT) if fate is Fate.LAND_UNSEEN else None
            self._wire.carry(self, topic, value, record, self._arrived(on_delivery, lost), copies)

    def _arrived(self, on_delivery: OnDelivery, lost: KafkaError | None) -> OnDelivery:
        def arrived(error: KafkaError | None, message: Any) -> None:
            self._under_way -= 1
            on_delivery(lost or error, message)

        return arrived

    def poll(self, timeout: float = -1) -> int:
        served = super().poll(timeout)
        reports, self._reports = self._reports, []
        for on_delivery, error in reports:
            on_delivery(error, None)
        if self._doomed and not self._told and not self._under_way:
            self._told = True
            raise KafkaException(KafkaError(KafkaError._GAPLESS_GUARANTEE, "a gap", True))
        return served

    def purge(self, **options: Any) -> None:
        self.purged = True
        super().purge(**options)


class ScriptedTransactions(Producer):
    """A transactional producer whose records are refused, and whose commits are lost, or land unseen."""

    def __init__(self, config: dict[str, Any], wire: Wire) -> None:
        super().__init__(config)
        self._wire = wire
        self._reports: list[tuple[OnDelivery, KafkaError]] = []
        self._fate = Fate.LAND

    def produce(self, topic: str, value: bytes | None, **record: Any) -> None:  # type: ignore[override]
        fate = self._wire.faults.fate(topic, record.get("partition", 0), record["key"])
        if fate is Fate.REFUSE:
            self._reports.append((record["on_delivery"], KafkaError(KafkaError.POLICY_VIOLATION)))
            return
        self._fate = fate
        super().produce(topic, value, **record)

    def flush(self, timeout: float = -1) -> int:
        left = super().flush(timeout)
        reports, self._reports = self._reports, []
        for on_delivery, error in reports:
            on_delivery(error, None)
        return left

    def commit_transaction(self, timeout: float = -1) -> None:
        assert self._wire.open_gate.wait(PATIENCE_S)
        if self._fate is not Fate.LOSE:
            super().commit_transaction(timeout)
        if self._fate is not Fate.LAND:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


ERRORS = {Fate.LOSE: KafkaError._MSG_TIMED_OUT, Fate.REFUSE: KafkaError.POLICY_VIOLATION}


class Wire:
    """Between producers and the broker. While it is held, what was sent waits on it, and lands later."""

    def __init__(self, bootstrap: str, faults: ScriptedFaults) -> None:
        self.faults = faults
        self._late = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0})
        self._waiting: list[Callable[[], None]] = []
        self._held = False
        self.open_gate = threading.Event()
        self.open_gate.set()

    def hold(self) -> None:
        self._held = True
        self.open_gate.clear()

    def release(self) -> None:
        self._held = False
        self.open_gate.set()
        waiting, self._waiting = self._waiting, []
        for land in waiting:
            land()
        assert self._late.flush(PATIENCE_S) == 0

    def carry(
        self,
        sender: ScriptedProducer,
        topic: str,
        value: bytes | None,
        record: dict[str, Any],
        on_delivery: OnDelivery,
        copies: int,
    ) -> None:
        def land() -> None:
            for copy in range(copies):
                if sender.purged:
                    self._late.produce(topic, value, **record)
                else:
                    report = on_delivery if copy == 0 else None
                    Producer.produce(sender, topic, value, **record, on_delivery=report)

        if self._held:
            self._waiting.append(land)
        else:
            land()


class ScriptedClients(Clients):
    def __init__(self, settings: KafkaSettings, wire: Wire) -> None:
        super().__init__(settings, "conformance")
        self._wire = wire

    def _make(self, kind: Any, *tables: Any) -> Any:
        if kind is Producer:
            return super()._make(self._scripted, *tables)
        return super()._make(kind, *tables)

    def _scripted(self, config: dict[str, Any]) -> Producer:
        kind = ScriptedTransactions if "transactional.id" in config else ScriptedProducer
        return kind(config, self._wire)


def make_topic(admin: AdminClient, topic: NewTopic) -> None:
    """Make a topic, and wait until a producer finds it: the controller is ahead of the broker."""
    admin.create_topics([topic])[topic.topic].result(PATIENCE_S)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = admin.list_topics(topic.topic).topics[topic.topic]
        if found.error is None and all(one.leader >= 0 for one in found.partitions.values()):
            return
        assert time.monotonic() < deadline, f"topic {topic.topic} has no leader"


class KafkaHarness(Harness):
    def __init__(self, bootstrap: str, namespace: str) -> None:
        super().__init__()
        self._settings = KafkaSettings(bootstrap, namespace)
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self._wire = Wire(bootstrap, self.faults)
        self._members: list[KafkaLog] = []
        self._compacted: set[int] = set()
        self._made: set[str] = set()
        self._make_topics()

    def _make_topics(self) -> None:
        topics = [
            NewTopic(
                self._settings.topic(topic.name),
                topic.count(EMBEDDED_PARTITIONS),
                1,
                config={**config_of(topic, 1), **(EASY_TO_CLEAN if topic.name == "history" else {})},
            )
            for topic in TOPICS.values()
        ]
        for made in self._admin.create_topics(topics).values():
            made.result(PATIENCE_S)
        names = {topic.topic for topic in topics}
        while not names <= self._admin.list_topics().topics.keys():  # the controller is ahead of the broker
            pass

    def member(self) -> Log:
        made = KafkaLog(
            self._settings, member="conformance", clients=ScriptedClients(self._settings, self._wire)
        )
        self._members.append(made)
        return made

    def topic(self, name: str) -> str:
        full = f"users-{self._settings.namespace}-{name}"
        if full not in self._made:
            self._made.add(full)
            make_topic(self._admin, NewTopic(full, 1, 1))
        return full

    def published(self, topic: str) -> list[Record]:
        full = self.topic(topic)
        consumer = Consumer(
            self._settings.client(
                group_id="none", isolation_level="read_committed", enable_partition_eof=True, log_level=0
            )
        )
        consumer.assign([TopicPartition(full, 0, 0)])
        found: list[Record] = []
        while (record := consumer.poll(PATIENCE_S)) is not None and record.error() is None:
            found.append(
                Record(
                    topic,
                    0,
                    record.offset() or 0,
                    record.timestamp()[1],
                    bytes(record.key() or b""),
                    record.value(),
                    dict(record.headers() or ()),
                )
            )
        consumer.close()
        return found

    def hold(self) -> None:
        self._wire.hold()

    def release(self) -> None:
        self._wire.release()

    def restart(self) -> None:
        """The processes begin anew; what the broker does when it is killed is seen in tests/kafka."""
        for member in self._members:
            member.close()
        self._members.clear()

    def compact(self) -> None:
        self._let_the_cleaner_come()
        member = self.member()
        deadline = time.monotonic() + PATIENCE_S
        while True:
            records = [r for p in range(EMBEDDED_PARTITIONS) for r in self._all(member, p)]
            if not any(self._may_go(record, records) for record in records):
                break
            assert time.monotonic() < deadline, "the broker does not compact"
        self._compacted = {record.offset for record in records}

    def _all(self, member: Log, partition: int) -> list[Record]:
        """Without the last record, which the cleaner does not look at."""
        return read_all(member, "history", partition)[:-1]

    def _may_go(self, record: Record, records: list[Record]) -> bool:
        superseded = any(
            other.key == record.key and other.offset > record.offset
            for other in records
            if other.partition == record.partition
        )
        return superseded or (record.value is None and record.offset in self._compacted)

    def _let_the_cleaner_come(self) -> None:
        for broker in self._admin.list_topics().brokers:
            self._set(ResourceType.BROKER, str(broker), "log.cleaner.backoff.ms", CLEANER_MS)
        self._set(ResourceType.TOPIC, self._settings.topic("history"), "min.compaction.lag.ms", 0)

    def _set(self, kind: ResourceType, name: str, option: str, value: int) -> None:
        entry = ConfigEntry(option, str(value), incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(kind, name, incremental_configs=[entry])
        for changed in self._admin.incremental_alter_configs([resource]).values():
            changed.result(PATIENCE_S)

    def pass_time(self) -> None:
        pass

    def close(self) -> None:
        self.release()
        self.restart()
        for deleted in self._admin.delete_topics([self._settings.topic(name) for name in TOPICS]).values():
            deleted.result(PATIENCE_S)
