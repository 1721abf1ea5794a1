"""Business events on their way to users' topics, and how far of them has been published."""

from __future__ import annotations

from orchestrator.protocol.values import Value

WORKFLOW_ID_HEADER = "workflow-id"
RUN_ID_HEADER = "run-id"
EVENT_ID_HEADER = "event-id"
WORKFLOW_TYPE_HEADER = "workflow-type"

CONTENT_TYPE_HEADER = "content-type"
"""The one header of ours that an author may set: only they know what their bytes are."""

OUR_HEADERS = frozenset({WORKFLOW_ID_HEADER, RUN_ID_HEADER, EVENT_ID_HEADER, WORKFLOW_TYPE_HEADER})
"""Headers that say where an event comes from; ``run-id`` and ``event-id`` together name it for ever."""


class Publication(Value, frozen=True, kw_only=True):
    """A record for a user's topic. ``value`` None is a tombstone. The key chooses the partition."""

    topic: str
    key: bytes
    value: bytes | None
    headers: dict[str, bytes] = {}

    @property
    def size_bytes(self) -> int:
        """What it takes on a topic: key, value and headers."""
        size = len(self.key) + len(self.value or b"")
        return size + sum(len(name) + len(value) for name, value in self.headers.items())


class HeldBack(Value, frozen=True, kw_only=True):
    """A run whose events the log refused: those of its turns from ``offset`` of history on were not
    published.
    """

    run_id: str
    offset: int
    reason: str = ""


class PublishMark(Value, frozen=True, kw_only=True):
    """How far the business events of one partition of history were published.

    The events of all valid turns up to ``offset`` were, but for what is held back. ``log_id`` names the
    history that the offset belongs to.
    """

    offset: int = -1
    held_back: tuple[HeldBack, ...] = ()
    log_id: str = ""
