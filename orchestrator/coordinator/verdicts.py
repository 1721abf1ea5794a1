"""What a record of history means to whoever owns its partition, or wants to: the words of ``ownership``."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.protocol.records import Claim, Position, Turn


class Committed(msgspec.Struct, frozen=True, gc=False):
    """A record of this owner's came back: it counts. ``entry`` is None for all but a turn's last part."""

    record: Turn | Position
    entry: Any
    offset: int


class Found(msgspec.Struct, frozen=True):
    """A valid record that this process did not write under its present claim: to be folded."""

    record: Turn | Position | Claim
    offset: int


class Void(msgspec.Struct, frozen=True):
    """A record that does not count, a late one of a former owner mostly."""

    key: bytes
    offset: int


class Erased(msgspec.Struct, frozen=True):
    """A tombstone."""

    key: bytes
    offset: int


class Owned(msgspec.Struct, frozen=True):
    """The claim came back: everything valid before it is the whole truth."""

    claim: Claim
    offset: int


class Lost(msgspec.Struct, frozen=True):
    """What was decided and not yet read back must be forgotten; ``found`` counts nevertheless.

    ``refused`` is the turn that the log did not take.
    """

    reason: str
    found: Found | None = None
    refused: Turn | None = None


Read = Found | Void | Erased
"""What is to be folded into the store, beside what this process appended itself."""

Verdict = Committed | Read | Owned | Lost
