"""Coordinators are paused while others take over, or claim against each other: nothing happens twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.codec import avro
from orchestrator.engine.validity import Validity
from orchestrator.log.topics import HISTORY
from orchestrator.protocol.records import Claim, HistoryRecord, history_key
from tests.kafka.cluster import PARTITIONS, Member, cluster
from tests.kafka.flows import Sleeper
from tests.kafka.raw import RawLog
from tests.kafka.shared import Shared
from tests.kafka.stops import HALF_LANDED, LANDED, SENT, UNSENT
from tests.simulation import checkers

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("split-brain")]

ROUNDS = (
    (UNSENT, LANDED),
    (SENT, "read-back"),
    (HALF_LANDED, "polled"),
    ("decided", "applied"),
    ("released", UNSENT),
)
"""Where two of three coordinators are stopped at a time: ten stops, before and after turns are read back."""

NOBODY = "nobody"

LATE = frozenset({UNSENT, HALF_LANDED})
"""Who is stopped there appends, when it goes on, what is void: the partition is another's by then."""


@pytest.mark.timeout(300)
async def test_coordinators_stopped_in_the_middle_of_a_step(
    kafka: Shared, namespace: str, tmp_path: Path
) -> None:
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        three = [made.coordinator(f"coordinator-{n}") for n in range(3)]
        await made.start(*three, made.worker("worker-1"), made.worker("worker-2"))
        await made.shared_by(three)
        async with made.under_load(flows=12) as load:
            for number, points in enumerate(ROUNDS):
                left, *stopped = three[number % 3 :] + three[: number % 3]
                void = _void_records(made.raw)
                await asyncio.gather(*map(Member.stop_at, stopped, points))
                await made.shared_by([left])
                await load.progress(20)
                for member in stopped:
                    member.go_on()
                await made.shared_by(three)
                await load.progress(20)
                late = _void_records(made.raw) - void
                assert late or LATE.isdisjoint(points), f"nothing of what was {points} came late to the log"
        (await made.autopsy()).judge()


def _void_records(raw: RawLog) -> int:
    """How many history has."""
    return sum(_judge(raw, p)[0].void_records for p in range(PARTITIONS))


def _judge(raw: RawLog, partition: int) -> tuple[Validity, list[tuple[HistoryRecord, bool]]]:
    """The records of a partition of history, each with whether it counts."""
    validity = Validity()
    values = [record.value for record in raw.read(HISTORY, partition) if record.value is not None]
    records: list[HistoryRecord] = [avro.decode(value, HISTORY) for value in values]
    return validity, [(record, validity.judge(record)) for record in records]


async def test_a_batch_that_straddles_a_foreign_claim(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    """What of it lies before the claim counts, all of it; nothing behind it does."""
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        coordinator = made.coordinator("coordinator")
        await made.start(coordinator, made.worker("worker-1"))
        async with made.under_load(flows=12) as load:
            await coordinator.stop_at(HALF_LANDED)
            epochs = [_claim_for_somebody_else(made.raw, p) for p in range(PARTITIONS)]
            coordinator.go_on()
            await load.progress(20)
        cut = 0
        for partition, epoch in enumerate(epochs):
            _, judged = _judge(made.raw, partition)
            place = next(
                n
                for n, (record, _) in enumerate(judged)
                if isinstance(record, Claim) and record.nonce == NOBODY
            )
            before, behind = _of_epoch(epoch, judged[:place]), _of_epoch(epoch, judged[place:])
            assert all(counts for _, counts in before)
            assert not any(counts for _, counts in behind)
            cut += bool(before and behind and behind[0][0] == before[-1][0] + 1)
        assert cut, "no batch lies on both sides of a claim"
        (await made.autopsy()).judge()


def _of_epoch(epoch: int, judged: list[tuple[HistoryRecord, bool]]) -> list[tuple[int, bool]]:
    """The seq of its turns and positions, and whether they count."""
    return [
        (record.seq, counts)
        for record, counts in judged
        if not isinstance(record, Claim) and record.epoch == epoch
    ]


def _claim_for_somebody_else(raw: RawLog, partition: int) -> int:
    """Append a valid claim of an owner who does nothing; returns the epoch that it ends."""
    before, _ = _judge(raw, partition)
    claim = Claim(epoch=before.epoch + 1, nonce=NOBODY, owner=NOBODY, generation=before.generation, time_ms=0)
    raw.append(HISTORY, partition, avro.encode(claim), key=history_key(claim))
    return before.epoch


async def test_timers_alone_when_a_coordinator_stops_in_between(
    kafka: Shared, namespace: str, tmp_path: Path
) -> None:
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        two = [made.coordinator(f"coordinator-{n}") for n in range(2)]
        await made.start(*two)
        await made.shared_by(two)
        sleepers = [
            await made.client.start_workflow(Sleeper.run, 120, 0.1, id=f"sleeper-{n}")
            for n in range(5 * PARTITIONS)
        ]
        await two[0].stop_at("decided")
        await made.shared_by([two[1]])
        two[0].go_on()
        await made.shared_by(two)
        assert await asyncio.gather(*(sleeper.result(60) for sleeper in sleepers)) == [120] * len(sleepers)
        facts = (await made.autopsy()).facts
        checkers.timers_are_not_early(facts)
        checkers.everything_closed(facts)
        assert facts.void, "nothing of what was written late came to the log"


async def test_two_that_claim_against_each_other(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    """Each is alone in a group of its own, which says that all partitions are its."""
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        two = [made.coordinator(f"coordinator-{n}", group=f"group-{n}") for n in range(2)]
        await made.start(*two, made.worker("worker-1"))
        async with made.under_load() as load:
            claims = 0
            while claims < 4 * PARTITIONS:
                await load.progress(10)
                claims = (await made.autopsy()).facts.claims
            await made.end(two[0])
            await load.progress(10)
        (await made.autopsy()).judge()
