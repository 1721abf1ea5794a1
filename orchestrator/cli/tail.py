"""The newest records of a topic, decoded: what stands on the log, for whoever wants to see it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec

from orchestrator.api.plain import plain
from orchestrator.cli import output
from orchestrator.codec import avro
from orchestrator.codec.people import time_of, visible
from orchestrator.log.port import Log, Record
from orchestrator.log.schemas import Schemas
from orchestrator.log.topics import COMMANDS, COMMANDS_TX, META

POLL_S = 0.5
"""Ctrl-C is heard so often."""


def newest(log: Log, topic: str, partitions: list[int], count: int) -> dict[int, int]:
    """Where to begin in each partition to see its last ``count`` offsets."""
    return {number: max(0, log.end(topic, number) - count) for number in partitions}


def records(log: Log, topic: str, starts: dict[int, int], *, follow: bool) -> Iterator[Record]:
    """What is there from these offsets on, by partition; then, if ``follow``, what comes, without an end."""
    schemas = Schemas()
    schemas.follow(log)
    for number, start in starts.items():
        offset = start
        while found := log.read(topic, number, offset, 500):
            yield from found
            offset = found[-1].offset + 1
        if follow:
            log.seek(topic, number, offset)
    while follow:
        for record in log.poll(POLL_S).records:
            if record.topic == META:
                schemas.take(record)
            if record.topic == topic and record.partition in starts:
                yield record


def described(record: Record) -> dict[str, Any]:
    """A record as plain JSON: its place, and what it holds, or why that cannot be read."""
    shown: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "time_ms": record.time_ms,
        "key": record.key.decode(errors="backslashreplace"),
        "headers": {name: value.decode(errors="backslashreplace") for name, value in record.headers.items()},
    }
    return shown | _content(record)


def _content(record: Record) -> dict[str, Any]:
    if record.value is None:
        return {"kind": "tombstone"}
    try:
        if record.topic == META:
            return {"kind": "json", "value": msgspec.json.decode(record.value)}
        commands = record.topic in (COMMANDS, COMMANDS_TX)
        found = avro.decode_command(record.value) if commands else avro.decode(record.value, record.topic)
    except (avro.DecodeError, msgspec.MsgspecError) as error:
        return {"kind": "undecodable", "error": str(error)}
    return {"kind": type(found).__name__, "value": plain(found)}


def line(record: Record) -> str:
    """A record in one line, for people."""
    shown = described(record)
    place = f"{record.topic}-{record.partition}@{record.offset}"
    value = output.to_jsonl([shown["value"]]) if "value" in shown else shown.get("error", "")
    parts = chain((time_of(record.time_ms), place, shown["kind"], shown["key"]), (value,))
    return visible("  ".join(part for part in parts if part))
