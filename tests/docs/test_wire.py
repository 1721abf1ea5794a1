"""docs/wire.md says what the code does: its programs, its examples of commands, its table of topics."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import pytest

from orchestrator.codec import avro
from orchestrator.codec.schema import TOPICS as RECORDS
from orchestrator.errors import CommandRejected
from orchestrator.log.topics import (
    CLIENT_HEADER,
    DAY_MS,
    FOR_EVER_MS,
    HOUR_MS,
    META,
    TOPICS,
    WORKER_HEADER,
)
from orchestrator.protocol.commands import Command, WorkerLost
from orchestrator.protocol.publications import CONTENT_TYPE_HEADER, OUR_HEADERS
from orchestrator.protocol.records import Turn
from orchestrator.protocol.tasks import ActivityTask, Reply, WorkerBeat
from orchestrator.protocol.traces import TRACEPARENT, TRACESTATE
from tests.docs.blocks import blocks

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = ROOT / "docs" / "wire.md"
TEXT = DOCUMENT.read_text()
COMMANDS = [block.text for block in blocks(DOCUMENT) if block.language == "json"]


def test_the_programs_are_those_that_are_tested() -> None:
    shown = {block.title: block.text for block in blocks(DOCUMENT) if block.title}
    assert shown == {path.name: path.read_text() for path in (ROOT / "examples").glob("kafka_*.py")}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: json.loads(text)["command"])
def test_each_command_is_one(command: str) -> None:
    avro.decode_command(command.encode())


def test_each_kind_of_command_is_shown() -> None:
    kinds = {kind.__name__ for kind in get_args(Command)} - {WorkerLost.__name__}
    assert sorted(json.loads(command)["command"] for command in COMMANDS) == sorted(kinds)


def test_the_topics_are_those_that_are_made() -> None:
    rows = re.findall(r"^\| `NS\.([\w-]+)` \| (\w+) \| .* \| (.+?) \|$", TEXT, re.MULTILINE)
    kept = {HOUR_MS: "1 h", DAY_MS: "1 day", 30 * DAY_MS: "30 days"}

    def shown(name: str) -> str:
        topic = TOPICS[name]
        words = ["compacted"] * topic.compacted + [
            kept[ms] for ms in [topic.retention_ms] if ms != FOR_EVER_MS
        ]
        return ", ".join(words) or "until decided"

    assert rows == [(name, str(topic.partitions or "N"), shown(name)) for name, topic in TOPICS.items()]


def test_the_headers_are_those_that_are_looked_at() -> None:
    table = TEXT.partition("### Headers")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (.+?) \| (`.+?) \|", table, re.MULTILINE)
    assert {topics: set(re.findall(r"`([\w-]+)`", names)) for topics, names in rows} == {
        "`commands`, `commands-tx`": {TRACEPARENT, TRACESTATE},
        "`tasks`": {WORKER_HEADER},
        "`replies`": {CLIENT_HEADER},
        "users' topics": OUR_HEADERS | {CONTENT_TYPE_HEADER, TRACEPARENT, TRACESTATE},
    }


@pytest.mark.parametrize(
    "struct", [ActivityTask, WorkerBeat, Reply, Turn], ids=lambda struct: struct.__name__
)
def test_each_field_is_explained(struct: type) -> None:
    named = {
        name
        for row in re.findall(r"^\| (`.+?) \|", TEXT, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    reserved = {"heartbeat_ms"}  # of a feature that is not there yet
    assert set(struct.__struct_fields__) - reserved <= named  # type: ignore[attr-defined]


def test_each_rejection_is_explained() -> None:
    reasons = {cls.reason for cls in CommandRejected.__subclasses__()}
    assert reasons <= set(re.findall(r"^\| `([a-z-]+)` \|", TEXT, re.MULTILINE))


def test_each_schema_is_named() -> None:
    assert {name for name in RECORDS if f"schemas/{name}.avsc" not in TEXT} == set()
    assert META not in RECORDS
