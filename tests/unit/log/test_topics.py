from __future__ import annotations

import pytest

from orchestrator.log.port import Record
from orchestrator.log.topics import TOPICS, refusal


def draft(topic: str = "history", partition: int = 0, value: bytes | None = b"v") -> Record:
    return Record(topic, partition, -1, 0, b"key", value, {"h": b"12"})


def test_commands_and_history_have_the_partitions_that_are_asked_for() -> None:
    counts = {topic.name: topic.count(7) for topic in TOPICS.values()}
    assert counts == {
        "commands": 7,
        "commands-tx": 7,
        "history": 7,
        "tasks": 32,
        "replies": 16,
        "workers": 1,
        "published": 7,
        "dead-letters": 1,
        "meta": 1,
    }


def test_only_what_repeats_itself_is_ephemeral() -> None:
    assert [topic.name for topic in TOPICS.values() if topic.ephemeral] == ["tasks", "replies", "workers"]


def test_the_size_counts_key_value_and_headers() -> None:
    size = len(b"key") + len("h") + len(b"12")
    assert refusal(draft(value=b"x" * (100 - size)), 4, 100) == ""
    assert "has 101 bytes, at most 100" in refusal(draft(value=b"x" * (101 - size)), 4, 100)
    assert refusal(draft(value=None), 4, size) == ""


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (draft("nope"), "there is no topic 'nope'"),
        (draft(partition=4), "there is no partition 4 of history; it has 4, from 0"),
        (draft(partition=-1), "there is no partition -1 of history"),
        (draft("workers", 1), "there is no partition 1 of workers; it has 1"),
    ],
)
def test_what_does_not_exist_is_refused(record: Record, message: str) -> None:
    assert message in refusal(record, 4, 1_000)
