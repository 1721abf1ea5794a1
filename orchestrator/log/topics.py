"""The topics: one table of what exists on every log.

Names are without the namespace's prefix; the Kafka adapter adds it. On the embedded log the
*ephemeral* topics are kept in a bounded tail in memory only, for nothing is lost with them: tasks are
sent again from history, clients repeat a command whose reply they missed, and beats repeat themselves.
Their readers start at the end. Offsets of ephemeral topics grow over restarts too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from orchestrator.log.port import Record
from orchestrator.protocol.publications import Publication

COMMANDS = "commands"
COMMANDS_TX = "commands-tx"
HISTORY = "history"
TASKS = "tasks"
REPLIES = "replies"
WORKERS = "workers"
PUBLISHED = "published"
DEAD_LETTERS = "dead-letters"
META = "meta"

EMBEDDED_PARTITIONS = 4
"""Partitions of commands and history in one process: enough for restores to overlap with work."""

KAFKA_PARTITIONS = 16
"""Partitions of commands and history on Kafka: at most so many coordinators share the work."""

PUBLISH_MARK_KEY = b"mark"
"""Key of each record on ``published``: only the last one of a partition counts."""

USER_TOPICS = "user/"
"""Prefix of users' topics on logs of our own, which hold them beside ours: no name of Kafka's has a slash."""

FOR_EVER_MS = -1
"""Records are kept until they are deleted or superseded."""

HOUR_MS = 3_600_000
"""Longer than any reader of an ephemeral topic is away and still means something to others."""

DAY_MS = 24 * HOUR_MS
"""Workers that have not beaten for so long are gone; dead letters are kept for 30, so that people see."""

USERS_RETENTION_MS = 7 * DAY_MS
"""Records of users' topics are kept for so long on logs of our own, as on Kafka by default."""

WORKER_HEADER = "worker"
"""Header of a record on ``tasks``: the incarnation that it is for."""

CLIENT_HEADER = "client"
"""Header of a record on ``replies``: the id of the client that it is for."""


class Topic(NamedTuple):
    """A topic; ``partitions`` 0 means as many as ``commands`` has.

    Records leave after ``retention_ms``; superseded ones not before ``compaction_lag_ms``.
    """

    name: str
    partitions: int = 0
    compacted: bool = False
    ephemeral: bool = False
    retention_ms: int = FOR_EVER_MS
    compaction_lag_ms: int = 0

    def count(self, commands_partitions: int) -> int:
        """The number of partitions on a log whose ``commands`` has that many."""
        return self.partitions or commands_partitions


TOPICS: Mapping[str, Topic] = {
    topic.name: topic
    for topic in (
        Topic(COMMANDS),
        Topic(COMMANDS_TX),
        Topic(HISTORY, compacted=True, compaction_lag_ms=HOUR_MS),
        Topic(TASKS, partitions=32, ephemeral=True, retention_ms=HOUR_MS),
        Topic(REPLIES, partitions=16, ephemeral=True, retention_ms=HOUR_MS),
        Topic(WORKERS, partitions=1, compacted=True, ephemeral=True, retention_ms=DAY_MS),
        Topic(PUBLISHED, compacted=True),
        Topic(DEAD_LETTERS, partitions=1, retention_ms=30 * DAY_MS),
        Topic(META, partitions=1, compacted=True),
    )
}


def is_users(topic: str) -> bool:
    """Whether a topic is a user's, by its name on a log of our own. It has one partition."""
    return topic.startswith(USER_TOPICS)


def publish_records(partition: int, records: Sequence[Publication], mark: bytes) -> list[Record]:
    """What one publish appends on a log of our own: the records, then the mark; offsets are not known yet."""
    landing = [Record(USER_TOPICS + out.topic, 0, -1, 0, out.key, out.value, out.headers) for out in records]
    return [*landing, Record(PUBLISHED, partition, -1, 0, PUBLISH_MARK_KEY, mark, {})]


def refusal(record: Record, commands_partitions: int, max_bytes: int) -> str:
    """Why a log will never take a record; empty if it may."""
    topic = TOPICS.get(record.topic)
    if topic is None:
        return f"there is no topic {record.topic!r}; the topics are {', '.join(TOPICS)}"
    count = topic.partitions or commands_partitions
    if not 0 <= record.partition < count:
        return f"there is no partition {record.partition} of {record.topic}; it has {count}, from 0"
    size = len(record.key) + len(record.value or b"")
    if record.headers:
        size += sum([len(name) + len(header) for name, header in record.headers.items()])
    if size > max_bytes:
        return f"the record has {size} bytes, at most {max_bytes} are allowed on {record.topic}"
    return ""
