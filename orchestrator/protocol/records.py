"""Records: what stands on the topics, and the keys they stand under.

History holds :class:`Claim`, :class:`Turn` and :class:`Position`; no key of theirs is ever written
twice (but for its tombstone), so compaction cannot replace a record that counts by one that does not.
"""

from __future__ import annotations

from enum import StrEnum

from orchestrator.protocol.events import Event
from orchestrator.protocol.values import Value

MAX_PART_BYTES = 512 * 1024
"""A turn that is larger is written in parts, each well below a broker's default limit of 1 MB."""

NAMESPACE_KEY = b"namespace"
"""Key on ``meta`` of the one :class:`Namespace`."""

FEATURE_LEVEL = 1
"""What this version can read and write. A namespace of a higher level needs a newer version."""


class Activation(StrEnum):
    """What a turn has to do with the workflow's code.

    ``NONE``: nothing. ``DEFERRED``: it holds facts that the code has yet to be told. ``DONE``: the code
    was told all facts since the last ``DONE`` turn, in order, and the outcomes here are its answer.
    """

    NONE = "none"
    DEFERRED = "deferred"
    DONE = "done"


class Marks(Value, frozen=True, kw_only=True):
    """The low-water marks of consumption: all commands below them are covered by earlier records."""

    commands: int = 0
    commands_tx: int = 0


class Cause(Value, frozen=True, kw_only=True):
    """A command that a turn decided: where it stood and its request id."""

    source: str
    offset: int
    request_id: str = ""
    kind: str = ""


class Claim(Value, tag=True, tag_field="record", frozen=True, kw_only=True):
    """An owner's claim of a history partition; valid iff its epoch is above all before it."""

    epoch: int
    nonce: str
    owner: str
    generation: int
    time_ms: int


class Turn(Value, tag=True, tag_field="record", frozen=True, kw_only=True):
    """Events of one run, appended together: all of them count, or none.

    ``turn`` counts the run's turns from 1, ``first_event_id`` its events from 1. ``part`` counts the
    parts of a large turn from 0; ``parts`` is their number in the last part and 0 in the others;
    ``causes``, ``marks`` and ``sent_through`` count at the last part.
    """

    epoch: int
    seq: int
    marks: Marks
    sent_through: int
    time_ms: int
    workflow_id: str
    run_id: str
    turn: int
    first_event_id: int
    activation: Activation
    events: tuple[Event, ...]
    causes: tuple[Cause, ...] = ()
    headers: dict[str, str] = {}
    part: int = 0
    parts: int = 1
    base_run_id: str = ""
    base_turn: int = 0


class Position(Value, tag=True, tag_field="record", frozen=True, kw_only=True):
    """Commands consumed without events, or a newer ``sent_through``; ``trying`` names a suspected run."""

    epoch: int
    seq: int
    marks: Marks
    sent_through: int
    time_ms: int
    trying: str = ""


class Namespace(Value, frozen=True, kw_only=True):
    """As what a namespace was made. Written once, as JSON, for it is read before any schema is known.

    ``partitions`` of commands and history; ``topic_ids`` by name without the prefix: topics that were
    deleted and made again have others. ``schema_ids`` are those that a schema registry gave to our schemas,
    by the ids that these have without one; newer versions have other schemas, and use the latter.
    """

    partitions: int
    cluster_id: str
    topic_ids: dict[str, str]
    feature_level: int
    time_ms: int
    schema_ids: dict[str, int] = {}

    @property
    def log_id(self) -> str:
        """What this log is known by: stores that were built from another one are of no use here."""
        return ".".join((self.cluster_id, *(self.topic_ids[name] for name in sorted(self.topic_ids))))


HistoryRecord = Claim | Turn | Position


def history_key(record: HistoryRecord) -> bytes:
    """The key that a record of ``history`` stands under."""
    if isinstance(record, Turn):
        key = f"{record.run_id}/{record.turn}/{record.epoch}"
        if record.part or not record.parts:
            key = f"{key}/{record.part}"
        return key.encode()
    if isinstance(record, Position):
        return f"position/{record.epoch}/{record.seq}".encode()
    return f"claim/{record.epoch}/{record.nonce}".encode()


def turn_keys(turn: Turn) -> list[bytes]:
    """The keys of all records of a whole turn, in order. ``turn`` is whole, or its last part."""
    if turn.parts == 1:
        return [history_key(turn)]
    key = f"{turn.run_id}/{turn.turn}/{turn.epoch}"
    return [f"{key}/{part}".encode() for part in range(turn.parts)]
