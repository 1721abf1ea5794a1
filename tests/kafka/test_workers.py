"""Workers on a broker come, are killed, and are shared: no attempt starts twice, and none is forgotten."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

import pytest

from tests.e2e.steady import read_ledger
from tests.kafka.cluster import PARTITIONS, cluster, until
from tests.kafka.flows import Slow
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("workers")]

BOUND_S = 30.0
"""Promised are 15 s; a machine that does much else takes its time."""


async def test_a_worker_that_is_killed(
    kafka: Shared, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it ran runs elsewhere. What it had reported before it died counts."""
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        victim, other = made.worker("victim"), made.worker("other")
        await made.start(made.coordinator("coordinator"), victim)
        held = [
            await made.client.start_workflow(Slow.run, 1, 600.0, id=f"held-{n}") for n in range(PARTITIONS)
        ]
        await until(lambda: len(read_ledger(tmp_path)) == len(held), "all attempts run")
        reported = await made.client.start_workflow(Slow.run, 1, 0.0, id="reported")
        assert await reported.result(60) == [victim.pid]
        await made.start(other)
        await made.kill(victim)
        killed_s = monotonic()
        await until(lambda: len(read_ledger(tmp_path)) == 2 * len(held) + 1, "they run elsewhere")
        took_s = monotonic() - killed_s
        attempts = {(line.run_id, line.attempt): line.pid for line in read_ledger(tmp_path)}
        for handle in held:
            assert attempts[handle.run_id, 1] == victim.pid
            assert attempts[handle.run_id, 2] == other.pid
        assert took_s < BOUND_S
        with capsys.disabled():
            print(f"\n    SIGKILL of a worker: its activities ran elsewhere after {took_s:.1f} s")


async def test_from_one_worker_to_five_and_back(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        two = [made.coordinator(f"coordinator-{n}") for n in range(2)]
        first, *others = (made.worker(f"worker-{n}", slots=2) for n in range(5))
        await made.start(*two, first)
        await made.shared_by(two)
        async with made.under_load(flows=12) as load:
            await made.start(*others)
            await load.progress(30)
            await asyncio.gather(*(made.end(worker) for worker in others))
            await load.progress(20)
        autopsy = await made.autopsy()
        autopsy.judge()
        assert len({line.pid for line in autopsy.ledger}) == 5, "a worker had nothing to do"


async def test_two_coordinators_share_one_slot(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    """Neither starves: of both, runs end while the other's still go on."""
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        two = [made.coordinator(f"coordinator-{n}") for n in range(2)]
        await made.start(*two, made.worker("worker", slots=1))
        await made.shared_by(two)
        mine, yours = (sorted(made.owners()[member.pid]) for member in two)
        ended: list[int] = []

        async def run(side: int, partition: int, number: int) -> None:
            id = made.id_on(partition, f"slow-{side}-{number}")
            await made.client.execute_workflow(Slow.run, 3, 0.1, id=id)
            ended.append(side)

        async with asyncio.timeout(100), asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(run(0, mine[0], number))
                group.create_task(run(1, yours[0], number))
        assert 0 in ended[:7], "the first coordinator starved"
        assert 1 in ended[:7], "the second coordinator starved"
        started = [line[2:] for line in read_ledger(tmp_path)]
        assert len(started) == len(set(started)) == 30, "each activity started once, at the first attempt"
