"""One trace over processes: a foreign producer, a coordinator that is killed, its successor, a worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic

from tests.conformance.log.kafka_harness import make_topic
from tests.e2e.test_traces import spans, tree
from tests.kafka.cluster import Cluster, Member, cluster, until
from tests.kafka.shared import Shared
from tests.kafka.test_events import all_published
from tests.kafka.traced import SPANS

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("takeover")]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def tracing(made: Cluster, role: str, name: str) -> Member:
    """A coordinator or a worker that makes spans."""
    data = ("--data", str(made.folder / name)) if role == "coordinator" else ()
    return made._member(name, role, "tests.kafka.traced", *data, **{SPANS: str(made.folder / "spans")})


async def test_a_foreign_producers_trace_goes_through_a_takeover_to_a_foreign_consumer(
    kafka: Shared, namespace: str, tmp_path: Path
) -> None:
    topic = f"users-{namespace}"
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        make_topic(made.raw.admin, NewTopic(topic, 3, 1))
        first = tracing(made, "coordinator", "first")
        await made.start(first, tracing(made, "worker", "worker"))
        command = {"command": "StartWorkflow", "workflow_id": "o-1", "workflow_type": "Telling"}
        value = json.dumps(command | {"input": [topic]}).encode()
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01".encode()}
        made.raw.append("commands", 0, value, headers=headers)
        file = tmp_path / "spans"
        await until(
            lambda: file.exists() and file.read_text().count("RunActivity:charge") == 2, "both attempts ran"
        )
        await made.kill(first)
        await made.start(tracing(made, "coordinator", "second"))
        handle = made.client.get_workflow_handle("o-1")
        await handle.signal("approve")
        assert await handle.result() == "charged"
        (event,) = await all_published(kafka.bootstrap, topic, 1)
        await until(lambda: "RunWorkflow" in file.read_text(), "the run is told of")
    found = spans(tmp_path)
    run, *below = tree(found, f"0x{PARENT}")
    assert run == "RunWorkflow:Telling"
    assert below == [
        "  RunActivity:charge failed",
        "    call the bank",
        "  RunActivity:charge completed",
        "    call the bank",
    ]
    assert {span["context"]["trace_id"] for span in found} == {f"0x{TRACE}"}
    (told,) = (span for span in found if span["name"] == run)
    own = told["context"]["span_id"].removeprefix("0x")
    assert event.headers["traceparent"] == f"00-{TRACE}-{own}-01".encode()
