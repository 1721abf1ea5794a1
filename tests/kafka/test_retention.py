"""Closed runs leave history and are compacted away; who begins with nothing finds the open ones."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from orchestrator.api.view_server import View
from orchestrator.errors import WorkflowNotFound
from orchestrator.log.kafka import admin
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.port import Record
from orchestrator.log.topics import HISTORY
from tests.kafka.cluster import PARTITIONS, PATIENCE_S, Cluster, cluster, until
from tests.kafka.flows import Sleeper, Slow, Teller
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("retention"), pytest.mark.timeout(200)]

A_SECOND = ("--retention-days", "0.00001")

TOLD = ["one", "two", "three"]


async def test_what_is_left_after_compaction_is_all_that_is_open(
    kafka: Shared, namespace: str, tmp_path: Path
) -> None:
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        hasty = made.coordinator("coordinator-1", *A_SECOND)
        await made.start(hasty, made.worker("worker"))
        start = made.client.start_workflow
        everywhere = range(PARTITIONS)
        tellers = [await start(Teller.run, id=made.id_on(n, "open")) for n in everywhere]
        naps = await start(Sleeper.run, 1, 3_600.0, id="naps")
        closing = [await start(Teller.run, id=made.id_on(n, "closed")) for n in everywhere]
        works = await start(Slow.run, 2, 0.01, id="works")
        for teller in tellers:
            for word in TOLD[:-1]:
                await teller.signal(Teller.tell, word)
        for closed in closing:
            await closed.signal(Teller.end)
        gone = {handle.run_id for handle in [*closing, works]}
        await until(partial(erased, made, gone), "closed runs have tombstones")

        await asyncio.to_thread(made.raw.clean_soon, HISTORY)
        for teller in tellers:
            await teller.signal(Teller.tell, TOLD[-1])
        await until(partial(compacted, made, gone), "they are compacted away")

        await made.kill(hasty)
        await made.start(made.coordinator("coordinator-2"))  # with an empty folder
        assert [await teller.query(Teller.words) for teller in tellers] == [TOLD] * PARTITIONS
        for closed in closing:
            with pytest.raises(WorkflowNotFound):
                await closed.query(Teller.words)
        left = {handle.run_id for handle in [*tellers, naps]}
        assert (await made.autopsy()).facts.runs.keys() == left
        assert await listed(kafka, namespace, tmp_path / "view") == left
        await asyncio.gather(*(teller.signal(Teller.end) for teller in tellers))
        assert {await teller.result(PATIENCE_S) for teller in tellers} == {len(TOLD)}


async def erased(made: Cluster, runs: set[str]) -> bool:
    """Whether every record of these runs has a tombstone."""
    found = await asyncio.to_thread(records_of, made, runs)
    last = {record.key: record.value for record in found}
    return {run_of(key) for key in last} == runs and not any(last.values())


async def compacted(made: Cluster, runs: set[str]) -> bool:
    """Whether at most tombstones are left of them."""
    found = await asyncio.to_thread(records_of, made, runs)
    return not any(record.value for record in found)


def records_of(made: Cluster, runs: set[str]) -> list[Record]:
    """Everything that history holds of these runs now."""
    records = [record for number in range(PARTITIONS) for record in made.raw.read(HISTORY, number)]
    return [record for record in records if run_of(record.key) in runs]


def run_of(key: bytes) -> str:
    """The run that a key of history begins with."""
    return key.partition(b"/")[0].decode()


async def listed(kafka: Shared, namespace: str, folder: Path) -> set[str]:
    """What a view that begins with nothing shows."""
    settings = KafkaSettings(kafka.bootstrap, namespace)
    namespace_ = await asyncio.to_thread(admin.check, settings, "view")
    log = KafkaLog(settings, member="view")
    view = View(log, folder, log_id=namespace_.log_id, explain=log.trouble)
    try:
        await until(lambda: view.materializer.ready, "the view has read history")
        return {row.run_id for row in view.reader.list_runs(limit=100).rows}
    finally:
        await asyncio.to_thread(view.close)
