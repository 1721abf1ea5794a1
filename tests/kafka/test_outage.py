"""The broker is killed under load and comes back: all processes wait for it, and go on by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.kafka.broker import Broker
from tests.kafka.cluster import cluster

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("outage"), pytest.mark.timeout(170)]

KILLS = 2


async def test_a_broker_that_is_killed_and_comes_back(
    make_broker: Callable[..., Broker], namespace: str, tmp_path: Path
) -> None:
    broker = make_broker()
    async with cluster(broker.bootstrap, namespace, tmp_path) as made:
        two = [made.coordinator(f"coordinator-{n}") for n in range(2)]
        workers = [made.worker(f"worker-{n}") for n in range(2)]
        await made.start(*two, *workers)
        await made.shared_by(two)
        async with made.under_load() as load:
            for _ in range(KILLS):
                await asyncio.to_thread(broker.kill)
                await asyncio.to_thread(broker.start)
                await load.progress(20)
        for member in (*two, *workers):
            member.check()
            said = member.log.read_text()
            assert "answers again" in said
            assert "Traceback" not in said
        (await made.autopsy()).judge()


async def test_members_that_start_while_the_broker_is_away(
    make_broker: Callable[..., Broker], namespace: str, tmp_path: Path
) -> None:
    """What is restored, claimed or joined just then is waited for as well."""
    broker = make_broker()
    async with cluster(broker.bootstrap, namespace, tmp_path) as made:
        one, two = (made.coordinator(f"coordinator-{n}") for n in range(2))
        worker = made.worker("worker")
        await made.start(one, worker)
        await made.shared_by([one])
        async with made.under_load() as load:
            await made.start(two)
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            await load.progress(20)
            await made.shared_by([one, two])
            await load.progress(20)
        for member in (one, two, worker):
            member.check()
        (await made.autopsy()).judge()
