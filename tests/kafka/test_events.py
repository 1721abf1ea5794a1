"""Coordinators that publish are killed and stopped: each business event is there once, in order per run."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import NewTopic

from orchestrator.log.port import Record
from tests.conformance.log.kafka_harness import make_topic
from tests.kafka.cluster import PATIENCE_S, Cluster, Member, cluster
from tests.kafka.flows import Announcer
from tests.kafka.shared import Shared
from tests.kafka.stops import LANDED, SENT, UNSENT
from tests.simulation import checkers

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("events"), pytest.mark.timeout(300)]

FLOWS = 12
"""Announcers at a time."""

EVENTS = 20
"""Of each, one after another."""

TOPIC_PARTITIONS = 3

SEED = "TEST_SEED"
"""Repeats what is drawn; by default it is something else each time. When it strikes is up to the machine."""

ROUNDS = 3

PUBLISHED = "published"
"""Events are on their topic, and the coordinator does not know it: one is always stopped or killed there."""

POINTS = ("polled", "read-back", "applied", "released", "decided", UNSENT, SENT, LANDED)
"""The other points; others are drawn each time."""


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


class Harm(NamedTuple):
    """What happens to one of three coordinators: where it is stopped, and whether it is killed there."""

    victim: int
    point: str
    kill: bool

    def __str__(self) -> str:
        return f"{self.victim} {'killed' if self.kill else 'stopped'} at {self.point!r}"


def draw(seed: int) -> list[tuple[Harm, Harm]]:
    """Six harms, two at a time, of three coordinators: three kills and three stops, each somewhere else."""
    random = Random(seed)
    points = random.sample([PUBLISHED, *random.sample(POINTS, 2 * ROUNDS - 1)], 2 * ROUNDS)
    kills = random.sample([True, False] * ROUNDS, 2 * ROUNDS)
    victims = [victim for _ in range(ROUNDS) for victim in random.sample(range(3), 2)]
    harms = itertools.starmap(Harm, zip(victims, points, kills, strict=True))
    return list(zip(harms, harms, strict=True))


async def suffer(made: Cluster, three: Sequence[Member], harms: Sequence[Harm]) -> None:
    """Two are stopped, or killed, and the third takes over; then the two are there again."""
    victims = [three[harm.victim] for harm in harms]
    await asyncio.gather(*(victim.stop_at(harm.point) for victim, harm in zip(victims, harms, strict=True)))
    for victim, harm in zip(victims, harms, strict=True):
        if harm.kill:
            await made.kill(victim)
    await made.shared_by([member for member in three if member not in victims])
    for victim, harm in zip(victims, harms, strict=True):
        if harm.kill:
            await made.start(victim)
        else:
            victim.go_on()
    await made.shared_by(three)


async def test_events_of_coordinators_that_are_killed_and_stopped(
    kafka: Shared, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get(SEED) or secrets.randbelow(10_000))
    rounds = draw(seed)
    with capsys.disabled():
        print(f"\n    {SEED}={seed}: {'; '.join(map(str, itertools.chain(*rounds)))}")
    topic = f"users-{namespace}"
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        make_topic(made.raw.admin, NewTopic(topic, TOPIC_PARTITIONS, 1))
        three = [made.coordinator(f"coordinator-{n}") for n in range(3)]
        await made.start(*three)
        await made.shared_by(three)
        enough = asyncio.Event()
        announcing = asyncio.create_task(announce(made, topic, enough))
        try:
            for harms in rounds:
                await suffer(made, three, harms)
        finally:
            enough.set()
        async with asyncio.timeout(PATIENCE_S):
            await announcing
        facts = (await made.autopsy()).facts
        found = await all_published(kafka.bootstrap, topic, len(facts.runs) * (EVENTS + 1))
        checkers.published_once(facts, {topic: found})
        checkers.everything_closed(facts)
        assert len(found) > 10 * EVENTS
