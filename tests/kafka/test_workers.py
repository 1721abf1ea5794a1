"""Workers on a broker come, are killed, and are shared: no attempt starts twice, and none is forgotten."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from time import monotonic

import pytest

from orchestrator.codec import avro
from orchestrator.log.topics import COMMANDS
from orchestrator.protocol.commands import CompleteActivity, WorkerLost
from orchestrator.protocol.events import (
    ActivityCompleted,
    ActivityScheduled,
    WorkflowCompleted,
    WorkflowStarted,
)
from tests.e2e.steady import read_ledger
from tests.kafka.cluster import PARTITIONS, cluster, until
from tests.kafka.flows import Gated, Slow
from tests.kafka.raw import RawLog
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("workers")]

ELSEWHERE_S = 15.0
"""What is promised: within it, what a killed worker ran runs elsewhere. A machine that does much else may be
late once: then the whole scene is run again (tests/conftest.py)."""

FLOWS, STEPS = 8, 5
"""Of each of two coordinators that share one slot: so many workflows at a time, of so many activities."""

IN_A_ROW = 20
"""The slot goes to the other with each beat, once per second; ten activities of 0.1 s are one beat's. Half of
what a side has: a coordinator that starves would wait for all forty of the other."""


async def test_a_worker_that_is_killed(
    kafka: Shared, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it ran runs elsewhere, soon."""
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        victim, other = made.worker("victim"), made.worker("other")
        await made.start(made.coordinator("coordinator"), victim)
        held = [
            await made.client.start_workflow(Slow.run, 1, 600.0, id=f"held-{n}") for n in range(PARTITIONS)
        ]
        await until(lambda: len(read_ledger(tmp_path)) == len(held), "all attempts run")
        await made.start(other)
        await made.kill(victim)
        killed_s = monotonic()
        await until(lambda: len(read_ledger(tmp_path)) == 2 * len(held), "they run elsewhere")
        took_s = monotonic() - killed_s
        attempts = {(line.run_id, line.attempt): line.pid for line in read_ledger(tmp_path)}
        for handle in held:
            assert attempts[handle.run_id, 1] == victim.pid
            assert attempts[handle.run_id, 2] == other.pid
        assert took_s < ELSEWHERE_S
        with capsys.disabled():
            print(f"\n    SIGKILL of a worker: its activities ran elsewhere after {took_s:.1f} s")


async def test_a_report_of_a_worker_that_died_before_it_was_read(
    kafka: Shared, namespace: str, tmp_path: Path
) -> None:
    """It counts: it stands before the word that the worker is lost. What was not reported runs elsewhere."""
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        coordinator = made.coordinator("coordinator")
        victim, other = made.worker("victim"), made.worker("other")
        await made.start(coordinator, victim)
        reported, unreported = [
            await made.client.start_workflow(Gated.run, gate, id=made.id_on(0, gate))
            for gate in ("reported", "unreported")
        ]
        await until(lambda: len(read_ledger(tmp_path)) == 2, "both attempts run")
        await made.start(other)

        coordinator.pause()
        (tmp_path / "reported").touch()
        await until(lambda: bool(_reports(made.raw)), "the worker has reported")
        await made.kill(victim)
        (report,) = _reports(made.raw)
        lost = WorkerLost(request_id="test", identity="test", worker=report.worker, partition=0)
        made.raw.append(COMMANDS, 0, avro.encode(lost))
        (tmp_path / "unreported").touch()
        coordinator.go_on()

        assert await unreported.result(60) == other.pid, "that the worker is lost was not decided"
        assert await reported.result(60) == victim.pid
        autopsy = await made.autopsy()
        starts = {
            run.run_id: [line.pid for line in autopsy.ledger if line.run_id == run.run_id]
            for run in (reported, unreported)
        }
        assert starts == {reported.run_id: [victim.pid], unreported.run_id: [victim.pid, other.pid]}
        events = [type(event) for turn in autopsy.facts.runs[reported.run_id] for event in turn.events]
        assert events == [WorkflowStarted, ActivityScheduled, ActivityCompleted, WorkflowCompleted]


def _reports(raw: RawLog) -> list[CompleteActivity]:
    """What stands on the first partition of commands."""
    commands = [avro.decode_command(record.value or b"") for record in raw.read(COMMANDS, 0)]
    return [command for command in commands if isinstance(command, CompleteActivity)]


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


async def test_two_coordinators_share_one_slot(
    kafka: Shared, namespace: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither starves: while both have activities that wait, none has the slot for long."""
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        two = [made.coordinator(f"coordinator-{n}") for n in range(2)]
        await made.start(*two, made.worker("worker", slots=1))
        await made.shared_by(two)
        partitions = [min(made.owners()[member.pid]) for member in two]
        flows = [
            (side, made.id_on(partition, f"slow-{side}-{number}"))
            for number in range(FLOWS)
            for side, partition in enumerate(partitions)
        ]
        handles = [await made.client.start_workflow(Slow.run, STEPS, 0.1, id=id) for _, id in flows]
        side_of = {handle.run_id: side for handle, (side, _) in zip(handles, flows, strict=True)}
        async with asyncio.timeout(100):
            await asyncio.gather(*(handle.result() for handle in handles))
        attempts = [line[2:] for line in read_ledger(tmp_path)]
        assert len(attempts) == len(set(attempts)) == len(flows) * STEPS, "each started once"
        longest = _longest_run([side_of[run_id] for run_id, _, _ in attempts])
        assert longest <= IN_A_ROW, "one coordinator kept the slot from the other"
        with capsys.disabled():
            print(f"\n    one slot, two coordinators: at most {longest} activities of one in a row")


def _longest_run(sides: list[int]) -> int:
    """The longest row of one side, as long as the other still had something to do."""
    both = min(len(sides) - sides[::-1].index(side) for side in set(sides))
    return max(len(list(row)) for _, row in itertools.groupby(sides[:both]))
