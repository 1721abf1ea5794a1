"""The hook below the adapters through which tests inject faults; production's does nothing."""

from __future__ import annotations

from enum import Enum


class Fate(Enum):
    """What shall become of one record."""

    LAND = "land"
    REFUSE = "refuse"
    """It does not land; the appender is told so."""
    LOSE = "lose"
    """It does not land; the outcome is unknown."""
    LAND_UNSEEN = "land-unseen"
    """It lands; the outcome is unknown."""
    DUPLICATE = "duplicate"
    """It lands twice, unless its appender is ordered."""


class FaultHook:
    """Override what shall fail.

    ``before_write``, ``before_sync`` and ``after_sync`` are called by the embedded log's writer for each
    batch: they may raise (the disk fails) or block (the acknowledgement is late).
    """

    def fate(self, topic: str, partition: int, key: bytes) -> Fate:
        """Called once per record, in the order of the appends."""
        return Fate.LAND

    def before_write(self) -> None:
        """Called before a batch is handed to the storage."""

    def before_sync(self) -> None:
        """Called between the write of a batch and its sync."""

    def after_sync(self) -> None:
        """Called when a batch is durable and nobody knows yet."""


NO_FAULTS = FaultHook()
