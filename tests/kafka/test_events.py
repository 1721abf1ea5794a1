"""Coordinators that publish are killed and stopped: each business event is there once, in order per run."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import NewTopic

from orchestrator.log.port import Record
from tests.conformance.log.kafka_harness import make_topic
from tests.kafka.cluster import PATIENCE_S, Cluster, Member, cluster
from tests.kafka.flows import Announcer
from tests.kafka.shared import Shared
from tests.simulation import checkers

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("events"), pytest.mark.timeout(300)]

FLOWS = 12
"""Announcers at a time."""

EVENTS = 20
"""Of each, one after another."""

TOPIC_PARTITIONS = 3


def committed(bootstrap: str, topic: str) -> list[Record]:
    """What a consumer sees that reads committed records."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "none",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(TOPIC_PARTITIONS)])
    found: list[Record] = []
    ended = 0
    while ended < TOPIC_PARTITIONS:
        record = consumer.poll(PATIENCE_S)
        assert record is not None
        error = record.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF, error
            ended += 1
            continue
        headers = dict(record.headers() or ())
        found.append(Record(topic, 0, record.offset() or 0, 0, record.key() or b"", record.value(), headers))
    consumer.close()
    return found


async def all_published(bootstrap: str, topic: str, count: int) -> list[Record]:
    """Wait until so many are there."""
    async with asyncio.timeout(PATIENCE_S):
        while len(found := await asyncio.to_thread(committed, bootstrap, topic)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    return found


async def announce(made: Cluster, topic: str, enough: asyncio.Event) -> None:
    """Several announcers at a time, until it is enough; all have ended when this returns."""
    numbers = itertools.count()

    async def flow() -> None:
        while not enough.is_set():
            id = f"announcer-{next(numbers)}"
            await made.client.execute_workflow(Announcer.run, topic, EVENTS, id=id)

    async with asyncio.TaskGroup() as group:
        for _ in range(FLOWS):
            group.create_task(flow())


async def harm(made: Cluster, three: Sequence[Member]) -> None:
    """One is stopped with its events published and not known to be, one before; one is killed, one comes."""
    first, second, third = three
    await first.stop_at("published")
    await made.shared_by([second, third])
    first.go_on()
    await made.shared_by(three)
    await second.stop_at("appended")
    await made.kill(third)
    await made.shared_by([first])
    second.go_on()
    await made.start(made.coordinator("coordinator-new"))
    await made.shared_by(made.members)


async def test_events_of_coordinators_that_are_killed_and_stopped(
    kafka: Shared, namespace: str, tmp_path: Path
) -> None:
    topic = f"users-{namespace}"
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        make_topic(made.raw.admin, NewTopic(topic, TOPIC_PARTITIONS, 1))
        three = [made.coordinator(f"coordinator-{n}") for n in range(3)]
        await made.start(*three)
        await made.shared_by(three)
        enough = asyncio.Event()
        announcing = asyncio.create_task(announce(made, topic, enough))
        try:
            await harm(made, three)
        finally:
            enough.set()
        async with asyncio.timeout(PATIENCE_S):
            await announcing
        facts = (await made.autopsy()).facts
        found = await all_published(kafka.bootstrap, topic, len(facts.runs) * (EVENTS + 1))
        checkers.published_once(facts, {topic: found})
        checkers.everything_closed(facts)
        assert len(found) > 10 * EVENTS
