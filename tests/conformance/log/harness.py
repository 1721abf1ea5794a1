"""One harness per adapter: what the suite needs beside the port, to start, hold and break a log."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from random import Random

from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.faults import Fate, FaultHook
from orchestrator.log.port import Delivery, Log, Membership, Record
from orchestrator.log.simulated import Faults, SimulatedCluster
from orchestrator.log.topics import USER_TOPICS

PATIENCE_S = 20.0
"""A log that has not answered by then is broken."""


class ScriptedFaults(FaultHook):
    """Fates by key; a gate that holds back everything."""

    def __init__(self) -> None:
        self.fates: dict[bytes, Fate] = {}
        self.gate = threading.Event()
        self.gate.set()

    def fate(self, topic: str, partition: int, key: bytes) -> Fate:
        return self.fates.get(key, Fate.LAND)

    def before_write(self) -> None:
        assert self.gate.wait(PATIENCE_S)


class Seen:
    """All that the polls of one member have brought."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.deliveries: list[Delivery] = []
        self.memberships: list[Membership] = []

    def keys(self, topic: str = "history", partition: int = 0) -> list[bytes]:
        return [r.key for r in self.records if (r.topic, r.partition) == (topic, partition)]

    def outcomes(self) -> dict[object, str]:
        return {delivery.token: delivery.outcome.value for delivery in self.deliveries}


def read_all(member: Log, topic: str = "history", partition: int = 0) -> list[Record]:
    """All records of a partition, by as many reads as it takes."""
    records: list[Record] = []
    while found := member.read(topic, partition, records[-1].offset + 1 if records else 0, 1_000):
        records += found
    return records


class Harness(ABC):
    """Makes members of one log and moves its time."""

    def __init__(self) -> None:
        self.faults = ScriptedFaults()
        self._seen: dict[int, Seen] = {}

    @abstractmethod
    def member(self) -> Log:
        """A new member."""

    @abstractmethod
    def hold(self) -> None:
        """Nothing becomes durable until :meth:`release`."""

    @abstractmethod
    def release(self) -> None: ...

    @abstractmethod
    def restart(self) -> None:
        """Stop the log and everything on it, and start it again."""

    @abstractmethod
    def compact(self) -> None:
        """Remove superseded records and all tombstones that may go."""

    @abstractmethod
    def pass_time(self) -> None:
        """Called between polls."""

    def poll(self, *members: Log, until: Callable[[Seen], bool]) -> Seen:
        """Poll the members in turn until what the first one has seen suffices."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for member in members:
                polled = member.poll(0.0 if len(members) > 1 else 0.05)
                seen = self.seen(member)
                seen.records += polled.records
                seen.deliveries += polled.deliveries
                seen.memberships += polled.memberships
            self.pass_time()
            if until(self.seen(members[0])):
                return self.seen(members[0])
            assert time.monotonic() < deadline, "the log did not get there"

    def topic(self, name: str) -> str:
        """The full name of a user's topic, which exists."""
        return name

    def published(self, topic: str) -> list[Record]:
        """What consumers that read committed records see of a user's topic, in the order of its partition."""
        return self.member().read(USER_TOPICS + topic, 0, 0, 10_000)

    def seen(self, member: Log) -> Seen:
        return self._seen.setdefault(id(member), Seen())

    @abstractmethod
    def close(self) -> None: ...


class EmbeddedHarness(Harness):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._now_ms = 1_000_000
        self._open()

    def _open(self) -> None:
        self._log = EmbeddedLog(self._folder, faults=self.faults, now_ms=lambda: self._now_ms)

    def member(self) -> Log:
        return self._log.member()

    def hold(self) -> None:
        self.faults.gate.clear()

    def release(self) -> None:
        self.faults.gate.set()

    def restart(self) -> None:
        self._log.close()
        self._open()

    def compact(self) -> None:
        self._now_ms += 1
        self._log.compact(lag_ms=0, tombstone_age_ms=0)

    def pass_time(self) -> None:
        pass

    def close(self) -> None:
        self.release()
        self._log.close()


class SimulatedHarness(Harness):
    def __init__(self) -> None:
        super().__init__()
        self._now_ms = 1_000_000
        self._members = 0
        self._cluster = SimulatedCluster(
            Random(7), lambda: self._now_ms, faults=Faults.none(), hook=self.faults, tombstone_ms=0
        )

    def member(self) -> Log:
        self._members += 1
        return self._cluster.member(f"m{self._members}")

    def hold(self) -> None:
        self._cluster.stalled = True

    def release(self) -> None:
        self._cluster.stalled = False

    def restart(self) -> None:
        self._now_ms += 60_000  # sessions end
        self._cluster.settle()

    def compact(self) -> None:
        self._now_ms += 1
        for partition in range(self._cluster.count("history")):
            end = self._cluster.partition("history", partition).end
            self._cluster.clean("history", partition, up_to=end)
            self._cluster.clean("published", partition)

    def pass_time(self) -> None:
        self._now_ms += 1

    def close(self) -> None:
        pass
