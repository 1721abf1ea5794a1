"""The records on a broker, bare: what a coordinator, or a stranger, would see and write."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from orchestrator.log.kafka import admin
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.port import Record
from orchestrator.log.topics import KAFKA_PARTITIONS
from tests.conformance.log.kafka_harness import CLEANER_MS, EASY_TO_CLEAN

SOON_S = 20.0
"""A broker that has not answered by then is broken."""


class RawLog:
    """One namespace of a broker. All calls block."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self._namespace = namespace
        self._bootstrap = bootstrap
        quiet = {"bootstrap.servers": bootstrap, "log_level": 0}
        self.admin = AdminClient(quiet)
        self._producer = Producer({**quiet, "linger.ms": 0})
        self._consumer = Consumer(
            {**quiet, "group.id": "raw", "enable.auto.commit": False, "enable.partition.eof": True}
        )

    def create_topics(self, *, partitions: int = KAFKA_PARTITIONS) -> None:
        """Make the namespace, as `orchestrator topic create` does."""
        admin.create(KafkaSettings(self._bootstrap, self._namespace), partitions=partitions)

    def configure(self, topic: str, name: str, value: str) -> None:
        """Set one setting of a topic."""
        self._set(ResourceType.TOPIC, self.full(topic), name, value)

    def clean_soon(self, topic: str) -> None:
        """Let the broker compact a topic as soon as it can, but for the last segment: an append ends it."""
        for broker in self.admin.list_topics(timeout=SOON_S).brokers:
            self._set(ResourceType.BROKER, str(broker), "log.cleaner.backoff.ms", str(CLEANER_MS))
        for name, value in (EASY_TO_CLEAN | {"min.compaction.lag.ms": "0"}).items():
            self.configure(topic, name, value)

    def _set(self, kind: ResourceType, of: str, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(kind, of, incremental_configs=[entry])
        for done in self.admin.incremental_alter_configs([resource]).values():
            done.result(SOON_S)

    def full(self, topic: str) -> str:
        """The name of a topic on the broker."""
        return f"{self._namespace}.{topic}"

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes,
        *,
        key: bytes = b"",
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Append one record; returns when it is durable."""
        failures: list[object] = []
        self._producer.produce(
            self.full(topic),
            value,
            key,
            partition,
            headers=list((headers or {}).items()),
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
        assert self._producer.flush(SOON_S) == 0
        assert not failures, failures

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last record."""
        place = TopicPartition(self.full(topic), partition)
        return int(self._consumer.get_watermark_offsets(place, timeout=SOON_S)[1])

    def read(self, topic: str, partition: int) -> list[Record]:
        """All records that a partition has now."""
        end = self.end(topic, partition)
        if not end:
            return []
        self._consumer.assign([TopicPartition(self.full(topic), partition, OFFSET_BEGINNING)])
        found = []
        while not found or found[-1].offset < end - 1:
            message = self._consumer.poll(SOON_S)
            assert message is not None, f"{topic}-{partition} cannot be read"
            if message.error():
                break  # the end of the partition
            headers = dict(message.headers() or [])
            found.append(
                Record(
                    topic,
                    partition,
                    message.offset(),
                    message.timestamp()[1],
                    message.key() or b"",
                    message.value(),
                    headers,
                )
            )
        self._consumer.unassign()
        return found

    def wait_for(self, topic: str, partition: int) -> list[Record]:
        """All records of a partition, once there is one."""
        self._consumer.assign([TopicPartition(self.full(topic), partition, OFFSET_BEGINNING)])
        while True:
            message = self._consumer.poll(SOON_S)
            assert message is not None, f"nothing comes on {topic}-{partition}"
            if not message.error():
                return self.read(topic, partition)

    def close(self) -> None:
        """Release the connections."""
        self._consumer.close()
