"""Publishing on the simulated log: transactions that are lost, land unseen, hang, and are fenced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from orchestrator.errors import LogError
from orchestrator.log.faults import Fate, FaultHook
from orchestrator.log.port import Outcome, Published, Record
from orchestrator.log.simulated_faults import Faults
from orchestrator.log.topics import publish_records
from orchestrator.protocol.publications import Publication


class Cluster(Protocol):
    """What transactions need of the cluster."""

    rng: Random
    faults: Faults
    hook: FaultHook
    now_ms: Callable[[], int]

    def strikes(self, fault: str) -> bool:
        """Draw whether a fault happens."""

    def at(self, due_ms: int, do: Callable[[], None]) -> None:
        """Do something later."""

    def land(self, record: Record) -> int:
        """Append a record."""

    def last_mark(self, partition: int) -> bytes | None:
        """The value of the last record of a partition of ``published``."""


class Transactions:
    """Who may publish for each partition, and which transactions are not decided yet."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._owners: dict[int, SimulatedPublisher] = {}
        self._hanging: dict[int, list[Record]] = {}

    def publisher(self, partition: int, alive: Callable[[], bool]) -> SimulatedPublisher:
        """A publisher of a process, not opened yet."""
        return SimulatedPublisher(self, self._cluster, partition, alive)

    def fence(self, partition: int, publisher: SimulatedPublisher) -> None:
        """From now on only this one publishes; what hangs is committed, or aborted."""
        if partition in self._hanging:
            self.decide(partition, self._cluster.rng.random() < 0.5)
        self._owners[partition] = publisher

    def is_owner(self, partition: int, publisher: SimulatedPublisher) -> bool:
        """Whether a publisher was not fenced."""
        return self._owners.get(partition) is publisher

    def hang(self, partition: int, records: list[Record]) -> None:
        """A transaction is decided later, when nobody looks."""
        self._hanging[partition] = records

        def decide() -> None:
            if self._hanging.get(partition) is records:
                self.decide(partition, self._cluster.rng.random() < 0.5)

        self._cluster.at(self._cluster.now_ms() + self._cluster.rng.randint(1, 20_000), decide)

    def decide(self, partition: int, commit: bool) -> None:
        """Commit or abort what hangs."""
        records = self._hanging.pop(partition)
        if commit:
            self.commit(records)

    def commit(self, records: list[Record]) -> None:
        """All of it is there, at once."""
        for record in records:
            self._cluster.land(record)


class SimulatedPublisher:
    """Implements :class:`orchestrator.log.port.Publisher`. It never waits."""

    def __init__(
        self, transactions: Transactions, cluster: Cluster, partition: int, alive: Callable[[], bool]
    ) -> None:
        self._transactions = transactions
        self._cluster = cluster
        self._partition = partition
        self._alive = alive
        self._usable = False

    def open(self) -> bytes | None:
        """Fence older publishers of this partition, and return the mark.

        Raises:
            LogError: the process is dead, or a fault strikes.
        """
        self._check_alive()
        if self._cluster.strikes("lost"):
            raise LogError("no answer in time")
        self._transactions.fence(self._partition, self)
        self._usable = True
        return self._cluster.last_mark(self._partition)

    def publish(self, records: Sequence[Publication], mark: bytes) -> Published:
        """Publish all records and the mark, or nothing.

        Raises:
            LogError: the process is dead.
        """
        self._check_alive()
        if not self._usable or not self._transactions.is_owner(self._partition, self):
            return Published(Outcome.UNKNOWN, "the publisher was fenced, or is of no use any more")
        landing = publish_records(self._partition, records, mark)
        published = self._attempt(landing)
        self._usable = published.outcome is Outcome.DELIVERED
        return published

    def _attempt(self, landing: list[Record]) -> Published:
        cluster, transactions = self._cluster, self._transactions
        for place, record in enumerate(landing[:-1]):
            if self._fate(record) is Fate.REFUSE or cluster.strikes("denied"):
                return Published(Outcome.REFUSED, "refused by an injected fault", refused=place)
        fate = self._fate(landing[-1])
        if fate is Fate.LOSE or cluster.strikes("lost"):
            return Published(Outcome.UNKNOWN, "timed out")
        if cluster.strikes("hanging"):
            transactions.hang(self._partition, landing)
            return Published(Outcome.UNKNOWN, "timed out")
        transactions.commit(landing)
        if fate is Fate.LAND_UNSEEN or cluster.strikes("unseen"):
            return Published(Outcome.UNKNOWN, "timed out")
        return Published(Outcome.DELIVERED)

    def _fate(self, record: Record) -> Fate:
        return self._cluster.hook.fate(record.topic, record.partition, record.key)

    def _check_alive(self) -> None:
        if not self._alive():
            raise LogError("the simulated process is dead")

    def close(self) -> None:
        """Nothing to release; what hangs is decided by the next one."""
        self._usable = False
