"""What a newer version writes, an older one reads: unknown fields, unknown kinds of events, unknown schemas.

This version plays the older one. The newer one is its schema with more in it, which stands on `meta`.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
from pathlib import Path
from typing import Any

import fastavro
import httpx
import pytest

from orchestrator.codec import avro
from orchestrator.codec.schema import schema_id
from orchestrator.demo.processes import Process
from orchestrator.engine.validity import Validity
from orchestrator.log.kafka.aio import KafkaAioLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.topics import HISTORY, META, TASKS
from orchestrator.protocol.events import UnknownEvent, WorkflowCompleted
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.records import Turn
from orchestrator.protocol.tasks import ActivityTask
from tests.kafka.cluster import PARTITIONS, PATIENCE_S, Cluster, cluster, until
from tests.kafka.flows import Teller
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("versions")]


class Newer:
    """A newer version's schema of a topic, which differs from ours, and what it writes."""

    def __init__(self, topic: str, **more: dict[str, Any]) -> None:
        """``more``: by the name of a record the field that it has more."""
        self.namespace = f"orchestrator.{topic}"
        self.schema = json.loads(avro.DEFAULT.schemas()[topic][1])
        for record, added in more.items():
            self.find(self.schema, record)["fields"].append(added)
        self.id = schema_id(self.schema)

    def find(self, schema: Any, name: str) -> Any:
        """The record of that name, wherever it is defined."""
        parts = schema if isinstance(schema, list) else schema.values() if isinstance(schema, dict) else ()
        if isinstance(schema, dict) and schema.get("name") == name and "fields" in schema:
            return schema
        return next((found for part in parts if (found := self.find(part, name)) is not None), None)

    def leave(self, made: Cluster) -> None:
        """Put the schema on `meta`, as a coordinator of that version does at its start."""
        made.raw.append(META, 0, json.dumps(self.schema).encode(), key=b"schema/%d" % self.id)

    def encode(self, kind: str, **fields: Any) -> bytes:
        """A record."""
        out = io.BytesIO(struct.pack(">bI", 0, self.id))
        out.seek(5)
        fastavro.schemaless_writer(
            out, fastavro.parse_schema(self.schema), (f"{self.namespace}.{kind}", fields)
        )
        return out.getvalue()


def text(name: str) -> dict[str, Any]:
    return {"name": name, "type": "string", "default": "new"}


def newer_history() -> Newer:
    """With a field more in turns and in an event, and a kind of event more."""
    newer = Newer(HISTORY, Turn=text("weather"), WorkflowSignaled=text("channel"))
    events = next(field for field in newer.find(newer.schema, "Turn")["fields"] if field["name"] == "events")
    annotated = {"type": "record", "name": "WorkflowAnnotated", "namespace": newer.namespace}
    events["type"]["items"].append({**annotated, "fields": [text("remark")]})
    newer.id = schema_id(newer.schema)
    return newer


async def test_history_of_a_newer_version(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    """Its owner has gone; who takes over, and who looks on, is of this version."""
    newer, number = newer_history(), partition_of("teller", PARTITIONS)
    assert newer.id != avro.DEFAULT.schemas()[HISTORY][0]
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        first = made.coordinator("coordinator-1")
        await made.start(first)
        teller = await made.client.start_workflow(Teller.run, id="teller")
        await teller.signal(Teller.tell, "of old")
        await made.kill(first)

        found = [avro.decode(record.value or b"") for record in made.raw.read(HISTORY, number)]
        validity = Validity()
        last = [record for record in found if validity.judge(record) and isinstance(record, Turn)][-1]
        epoch, next_event = validity.epoch + 1, last.first_event_id + len(last.events)
        newer.leave(made)
        claim = newer.encode(
            "Claim", epoch=epoch, nonce="n", owner="newer", generation=0, time_ms=last.time_ms
        )
        made.raw.append(HISTORY, number, claim, key=f"claim/{epoch}/n".encode())
        signal = {"signal_name": "tell", "input": [{"data": b'"of new"'}], "channel": "by phone"}
        turn = newer.encode(
            "Turn",
            epoch=epoch,
            seq=1,
            marks={"commands": last.marks.commands},
            sent_through=last.sent_through,
            time_ms=last.time_ms,
            workflow_id="teller",
            run_id=last.run_id,
            turn=last.turn + 1,
            first_event_id=next_event,
            activation="deferred",
            weather="fair",
            events=[
                (f"{newer.namespace}.WorkflowAnnotated", {"remark": "seen"}),
                (f"{newer.namespace}.WorkflowSignaled", signal),
            ],
        )
        made.raw.append(HISTORY, number, turn, key=f"{last.run_id}/{last.turn + 1}/{epoch}".encode())

        await made.start(made.coordinator("coordinator-2"))
        assert await teller.query(Teller.words) == ["of old", "of new"]
        await teller.signal(Teller.end)
        assert await teller.result(PATIENCE_S) == 2
        avro.register(json.dumps(newer.schema))
        turns = (await made.autopsy()).facts.runs[last.run_id]
        events = [event for turn in turns for event in turn.events]
        assert events[next_event - 1] == UnknownEvent(kind="WorkflowAnnotated")
        assert isinstance(events[-1], WorkflowCompleted)
        assert await seen_by_a_view(made) == len(events)


async def seen_by_a_view(made: Cluster) -> int:
    """How many events of the run a view counts."""
    log = made.folder / "view.log"
    where = ("--log", made.address, "--namespace", made.namespace)
    arguments = ("view", *where, "--data", str(made.folder / "view"), "--port", "0")
    view = Process("view", arguments, log, {})
    await view.start()
    try:
        await until(lambda: "ready: http" in log.read_text(), "the view is ready")
        address = log.read_text().split("ready: ")[1].split()[0]
        async with httpx.AsyncClient(base_url=f"{address}/api/v1") as http:

            async def knows() -> bool:
                return (await http.get("/workflows/teller")).status_code == 200

            await until(knows, "the view knows the run")
            row = (await http.get("/workflows/teller")).json()["row"]
            assert row["status"] == "Completed"
            count: int = row["history_events"]
            return count
    finally:
        await view.kill()


async def test_a_task_of_a_newer_version(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    """A worker that runs already learns the schema when it comes."""
    newer = Newer(TASKS, ActivityTask=text("weather"))
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        log = KafkaAioLog(KafkaSettings(kafka.bootstrap, namespace))
        try:
            inbox = await log.open_inbox("me")
            fields: dict[str, Any] = {
                "workflow_id": "w",
                "run_id": "r",
                "workflow_type": "W",
                "activity_id": 7,
            }
            fields |= {"worker": "me", "activity_type": "a", "task_queue": "q", "attempt": 1, "dispatch": 1}
            newer.leave(made)
            # Partitions are not in order among each other: it is of use once the schema was read.
            async with asyncio.timeout(PATIENCE_S):
                tasks: list[Any] = []
                while not tasks:
                    value = newer.encode("ActivityTask", **fields, weather="fair")
                    made.raw.append(TASKS, inbox.partition, value, headers={"worker": b"me"})
                    tasks = [delivered.task for delivered in await inbox.next(1.0)]
            assert tasks[0] == ActivityTask(**fields)
        finally:
            await log.close()
