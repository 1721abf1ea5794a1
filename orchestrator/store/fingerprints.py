"""Failures that are alike: what they have in common, and a name for it. No I/O."""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple

from orchestrator.protocol.values import Failure

MAX_MESSAGE_CHARS = 200
"""Of a message that names a group: enough to know it by, little enough for a table."""

_FINGERPRINT_BYTES = 6
"""A clash among a million different failures has a chance of one in five hundred."""

_MIN_ID_CHARS = 8
"""A word with digits that is as long is an id (``ch_3MqLiJ2e``); a shorter one has a number in it."""

_VARYING = re.compile(
    r"(?P<uuid>\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b)"
    r"|(?P<number>(?<!\w)\d+(?:[.,:]\d+)*(?!\w))"
    r"|(?P<word>\w*\d\w*)"
)


class Alike(NamedTuple):
    """What a group of failures has in common; ``message`` is without what differs from one to the next."""

    fingerprint: str
    workflow_type: str
    activity_type: str
    failure_type: str
    message: str


def alike(failure: Failure, workflow_type: str, activity_type: str = "") -> Alike:
    """The group that a failure belongs to.

    ``activity_type`` is of the activity that failed, if the failure does not name it.
    """
    root = failure
    while root.cause is not None:
        activity_type = root.activity_type or activity_type
        root = root.cause
    activity_type = root.activity_type or activity_type
    failure_type = root.type or root.kind.value
    message = normalized(root.message)
    words = "\0".join((workflow_type, activity_type, failure_type, message)).encode(errors="replace")
    fingerprint = blake2b(words, digest_size=_FINGERPRINT_BYTES).hexdigest()
    return Alike(fingerprint, workflow_type, activity_type, failure_type, message)


def normalized(message: str) -> str:
    """The first line of a message, with ``<uuid>``, ``<id>`` and ``<n>`` for what tells one from another."""
    line = next((line for line in message.splitlines() if line.strip()), "")
    return _VARYING.sub(_placeholder, line[: 4 * MAX_MESSAGE_CHARS]).strip()[:MAX_MESSAGE_CHARS]


def _placeholder(found: re.Match[str]) -> str:
    word = found["word"]
    if word is None:
        return "<uuid>" if found["uuid"] else "<n>"
    return "<id>" if len(word) >= _MIN_ID_CHARS else re.sub(r"\d+", "<n>", word)
