"""Coordinators are paused while others take over, or claim against each other: nothing happens twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.kafka.cluster import PARTITIONS, cluster
from tests.kafka.flows import Sleeper
from tests.kafka.shared import Shared
from tests.simulation import checkers

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("split-brain")]

ROUNDS = (("appended", "read-back"), ("polled", "applied"), ("decided", "released"))
"""Where two of three coordinators are stopped at a time: before and after their turns are read back."""


async def test_coordinators_stopped_in_the_middle_of_a_step(
    kafka: Shared, namespace: str, tmp_path: Path
) -> None:
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        three = [made.coordinator(f"coordinator-{n}") for n in range(3)]
        await made.start(*three, made.worker("worker-1"), made.worker("worker-2"))
        await made.shared_by(three)
        async with made.under_load() as load:
            for number, points in enumerate(ROUNDS):
                *stopped, left = three[number:] + three[:number]
                for member, point in zip(stopped, points, strict=True):
                    await member.stop_at(point)
                await made.shared_by([left])
                await load.progress(20)
                for member in stopped:
                    member.go_on()
                await made.shared_by(three)
                await load.progress(20)
        autopsy = await made.autopsy()
        autopsy.judge()
        assert autopsy.facts.void, "nothing of what was written late came to the log"


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
