"""A coordinator, a worker and a view tell their operators how they are, while Kafka is there and not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.kafka.broker import Broker
from tests.kafka.cluster import PARTITIONS, Member, cluster, until
from tests.kafka.flows import Slow

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("outage")]


def address_of(member: Member) -> str:
    """Where its metrics are, as it says itself."""
    found = re.search(r"(?:metrics|the page): (http://[^/\s]+)/", member.log.read_text())
    assert found is not None
    return found[1]


async def test_roles_tell_how_they_are(
    make_broker: Callable[..., Broker], namespace: str, tmp_path: Path
) -> None:
    victim = make_broker()
    async with cluster(victim.bootstrap, namespace, tmp_path) as made, httpx.AsyncClient(timeout=10) as http:
        coordinator = made.coordinator("coordinator", "--metrics-port", "0")
        worker = made.worker("worker", "--metrics-port", "0")
        view = made.view("view")
        await made.start(coordinator, worker, view)
        roles = [address_of(member) for member in (coordinator, worker, view)]

        async def ready() -> list[int]:
            return [(await http.get(f"{role}/ready")).status_code for role in roles]

        async def all_ready() -> bool:
            return await ready() == [200] * 3

        async def none_ready() -> bool:
            return await ready() == [503] * 3

        async def metrics() -> str:
            return "".join([(await http.get(f"{role}/metrics")).text for role in roles])

        await until(all_ready, "all are ready")
        await made.client.execute_workflow(Slow.run, 1, 0.0, id="s")
        said = await metrics()
        assert 'orchestrator_workflows_closed_total{status="Completed",workflow_type="Slow"} 1.0' in said
        assert (
            'orchestrator_activity_duration_seconds_count{activity_type="linger",outcome="completed"} 1.0'
            in said
        )
        assert f"orchestrator_partitions {PARTITIONS:.1f}" in said
        victim.pause()
        await until(none_ready, "none is ready while Kafka is away")
        assert "does not answer" in (await http.get(f"{roles[0]}/ready")).text
        assert "orchestrator_view_log_away 1.0" in await metrics()
        assert [(await http.get(f"{role}/live")).status_code for role in roles] == [200] * 3
        victim.resume()
        await until(all_ready, "all are ready again")
