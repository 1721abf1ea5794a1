"""What a coordinator tells of itself while it works; see :mod:`orchestrator.coordinator.metering`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from orchestrator.coordinator.drafts import Input
from orchestrator.coordinator.partition import Entry, Partition
from orchestrator.protocol.commands import Command
from orchestrator.protocol.tasks import QueueBacklog


class Meter(Protocol):
    """Is told what happens, on the coordinator's thread. It takes notes, at little cost, and cannot fail."""

    def took(self, command: Command, waited_ms: int) -> None:
        """A command is taken up, so long after it was appended."""

    def came(self, inputs: Mapping[str, Sequence[Input]], now_ms: int) -> None:
        """The engine's own inputs, by workflow id: deadlines and the like."""

    def committed(self, partition: int, entries: Iterable[tuple[Entry, int]], now_ms: int) -> None:
        """Turns were read back, with their offsets."""

    def owned(self, partition: int, blocked: Iterable[str]) -> None:
        """A claim came back; the ids of the partition's runs that are blocked."""

    def gave_up(self, partition: int, *, incident: bool) -> None:
        """A partition is another's, or something unexpected has happened to its claim."""

    def found_void(self) -> None:
        """A record of history does not count."""

    def set_aside(self, topic: str) -> None:
        """A record of a topic is of no use."""

    def beat(self, partitions: Collection[Partition], backlogs: Iterable[QueueBacklog], now_ms: int) -> None:
        """Once per second: how things are."""


class Unmetered:
    """Nobody wants to know."""

    def took(self, command: Command, waited_ms: int) -> None:
        """Nothing."""

    def came(self, inputs: Mapping[str, Sequence[Input]], now_ms: int) -> None:
        """Nothing."""

    def committed(self, partition: int, entries: Iterable[tuple[Entry, int]], now_ms: int) -> None:
        """Nothing."""

    def owned(self, partition: int, blocked: Iterable[str]) -> None:
        """Nothing."""

    def gave_up(self, partition: int, *, incident: bool) -> None:
        """Nothing."""

    def found_void(self) -> None:
        """Nothing."""

    def set_aside(self, topic: str) -> None:
        """Nothing."""

    def beat(self, partitions: Collection[Partition], backlogs: Iterable[QueueBacklog], now_ms: int) -> None:
        """Nothing."""
