"""Records that nobody can use, as they are set aside on ``dead-letters``."""

from __future__ import annotations

from orchestrator.codec import avro
from orchestrator.log.port import Record
from orchestrator.log.topics import DEAD_LETTERS
from orchestrator.protocol.tasks import DeadLetter

MAX_VALUE_BYTES = 512 * 1024
"""Copied of a record's value: with its key and the reason it is a record that every topic takes."""


def letter_of(record: Record, reason: str) -> DeadLetter:
    """What is kept of a record, and why it is of no use."""
    return DeadLetter(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        reason=reason,
        key=record.key,
        value=(record.value or b"")[:MAX_VALUE_BYTES],
        time_ms=record.time_ms,
    )


def letter_record(letter: DeadLetter) -> Record:
    """The record of a letter. Its key names the place: a letter that comes again has the same one."""
    key = f"{letter.topic}-{letter.partition}-{letter.offset}".encode()
    return Record(DEAD_LETTERS, 0, -1, 0, key, avro.encode(letter), {})
