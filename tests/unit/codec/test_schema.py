import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastavro import parse_schema

from orchestrator.codec.schema import TOPICS, derive, schema_id, write_files
from orchestrator.protocol.values import Value

SCHEMAS = Path(__file__).parents[3] / "schemas"


def records(schema: Any) -> dict[str, Any]:
    """The records that a schema spells out, by name."""
    found: dict[str, Any] = {}
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        elif isinstance(part, dict):
            if part.get("type") == "record":
                found[part["name"]] = part
            pending.extend(part.values())
    return found


def fields(record: Any) -> dict[str, Any]:
    return {field["name"]: field for field in record["fields"]}


def test_the_files_are_what_the_structs_say(tmp_path: Path) -> None:
    for fresh in write_files(tmp_path):
        checked_in = SCHEMAS / fresh.name
        assert checked_in.exists(), "run: python -m orchestrator.codec.schema schemas/"
        assert checked_in.read_text() == fresh.read_text(), (
            "run: python -m orchestrator.codec.schema schemas/"
        )
    assert {file.name for file in SCHEMAS.iterdir()} == {f"{topic}.avsc" for topic in TOPICS}


@pytest.mark.parametrize("topic", TOPICS)
def test_a_schema_is_valid_complete_and_documented(topic: str) -> None:
    schema = derive(topic, TOPICS[topic])

    parse_schema(schema)
    for record in records(schema).values():
        assert record["namespace"] == f"orchestrator.{topic.replace('-', '_')}"
        assert record["doc"]


def test_types_defaults_and_docs_are_derived() -> None:
    known = records(derive("history", TOPICS["history"]))
    scheduled, started, turn = (
        fields(known[name]) for name in ("ActivityScheduled", "WorkflowStarted", "Turn")
    )

    assert known["TimerFired"]["doc"] == "Fact. A timer's time has come."
    assert scheduled["activity_id"] == {"name": "activity_id", "type": "long"}
    assert scheduled["activity_type"]["type"] == "string"
    assert scheduled["heartbeat_ms"] == {"name": "heartbeat_ms", "type": ["null", "long"], "default": None}
    assert scheduled["cancellation_type"]["default"] == "try-cancel"
    assert scheduled["headers"]["type"] == {"type": "map", "values": "string"}
    assert scheduled["retry_policy"]["default"]["backoff_coefficient"] == 2.0
    assert started["memo"]["type"]["values"] == "orchestrator.history.Payload"
    assert turn["events"]["type"]["type"] == "array"
    assert "default" not in turn["events"]


def test_a_placeholder_cannot_be_written() -> None:
    assert "UnknownEvent" not in records(derive("history", TOPICS["history"]))


def test_a_chain_is_an_array_so_that_no_schema_is_recursive() -> None:
    known = records(derive("replies", TOPICS["replies"]))

    assert fields(known["Failure"])["cause"]["type"]["items"] is known["FailureLink"]
    assert fields(known["Failure"]).keys() - fields(known["FailureLink"]).keys() == {"cause"}


def test_the_id_depends_on_the_layout_only() -> None:
    schema = derive("dead-letters", TOPICS["dead-letters"])
    documented = json.loads(json.dumps(schema)) | {"doc": "Other words."}
    other = json.loads(json.dumps(schema))
    other["fields"][0]["type"] = "bytes"

    assert schema_id(schema) == schema_id(documented) != schema_id(other)
    assert 0 < schema_id(schema) < 2**31


def test_ids_of_topics_differ() -> None:
    assert len({schema_id(derive(topic, TOPICS[topic])) for topic in TOPICS}) == len(TOPICS)


class Odd(Value, frozen=True, kw_only=True):
    """A struct with a type that has no place in the table."""

    number: msgspec.Raw


def test_a_type_without_a_place_in_the_table_is_refused() -> None:
    with pytest.raises(TypeError, match="no Avro type"):
        derive("history", Odd)
