"""Identifiers, and the one rule that places a workflow id on a partition."""

from __future__ import annotations

import re
import struct
from functools import lru_cache

from orchestrator.errors import UsageError
from orchestrator.protocol.values import MAX_WORKFLOW_ID_CHARS

_MASK = 0xFFFFFFFF
_WORDS = struct.Struct("<I").iter_unpack

MAX_TOPIC_CHARS = 249
"""Kafka's: the name of a topic is part of the names of its files."""

_PATH_WORDS = (".", "..")
"""HTTP clients take them out of a path, so what they name cannot be reached."""

_TOPIC = re.compile(r"[a-zA-Z0-9._-]+")


def murmur2(data: bytes) -> int:
    """Kafka's default partitioner hash (32 bits, unsigned).

    Source: ``org.apache.kafka.common.utils.Utils.murmur2``.
    """
    length = len(data)
    m = 0x5BD1E995
    h = (0x9747B28C ^ length) & _MASK
    tail = length & ~3
    for (word,) in _WORDS(data[:tail]):
        k = word * m & _MASK
        h = (h * m ^ (k ^ (k >> 24)) * m) & _MASK
    rest = data[tail:]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * m & _MASK
    h = (h ^ (h >> 13)) * m & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=4_096)
def partition_of(workflow_id: str, partitions: int) -> int:
    """The partition of ``commands`` and ``history`` that a workflow id lives on, as Java clients place it."""
    return (murmur2(workflow_id.encode()) & 0x7FFFFFFF) % partitions


def check_workflow_id(workflow_id: str) -> str:
    """Return the id, or raise :class:`UsageError` if it cannot be one."""
    if not isinstance(workflow_id, str):
        raise UsageError(f"the workflow id is {workflow_id!r}; give text, such as 'order-17'")
    if not workflow_id:
        raise UsageError("the workflow id is empty; give each workflow an id such as 'order-17'")
    if workflow_id in _PATH_WORDS:
        raise UsageError(
            f"the workflow id is {workflow_id!r}, which means a folder in an address, so nobody could ask "
            "for the workflow over HTTP; give another one, such as 'order-17'"
        )
    if len(workflow_id) > MAX_WORKFLOW_ID_CHARS:
        raise UsageError(
            f"the workflow id has {len(workflow_id)} characters, at most {MAX_WORKFLOW_ID_CHARS} are allowed"
        )
    if not workflow_id.isprintable():
        raise UsageError(f"the workflow id {workflow_id!r} contains control characters")
    return workflow_id


def check_topic(topic: str) -> str:
    """Return the name of a user's topic, or raise :class:`UsageError` if Kafka would not take it."""
    if not isinstance(topic, str):
        raise UsageError(f"{topic!r} is no name of a topic; give text")
    return _known_topic(str.__str__(topic))


@lru_cache(maxsize=4_096)
def _known_topic(topic: str) -> str:
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise UsageError(f"{topic!r} is no name of a topic; use letters (a-z, A-Z), digits, '.', '_' and '-'")
    if len(topic) > MAX_TOPIC_CHARS:
        raise UsageError(
            f"the name of the topic has {len(topic)} characters, at most {MAX_TOPIC_CHARS} are allowed"
        )
    return topic
