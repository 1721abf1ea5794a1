"""A user's program that sends commands within transactions of its own, and what Kafka makes of them."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

from msgspec.structs import replace

from orchestrator.log.port import Record
from orchestrator.log.simulated import SimulatedCluster
from orchestrator.log.topics import COMMANDS_TX
from orchestrator.log.typed import command_record
from orchestrator.protocol.commands import Command

HANG_MS = 20_000
"""So long a transaction may stay open until somebody, or the broker, ends it."""

AGAIN_MS = 1_000
"""After so long the program tries again what was aborted, or what it knows nothing of."""


class Transaction:
    """Some commands, all of which count or none."""

    def __init__(self) -> None:
        self.is_open = True
        self.committed = False


class TransactionalTopic:
    """``commands-tx`` as readers of committed records see it: nothing behind a transaction that is open."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._sent: dict[int, deque[tuple[Transaction, Record]]] = {}

    def send(self, transaction: Transaction, command: Command) -> None:
        """Append a command; it is seen when its transaction, and all before it, have ended."""
        record = replace(command_record(command, self._cluster.partitions), topic=COMMANDS_TX)
        self._sent.setdefault(record.partition, deque()).append((transaction, record))

    def end(self, transaction: Transaction, *, commit: bool) -> None:
        """Commit or abort a transaction. What was aborted, and each marker, leave a gap in the offsets."""
        transaction.is_open, transaction.committed = False, commit
        for number, sent in self._sent.items():
            partition = self._cluster.partition(COMMANDS_TX, number)
            while sent and not sent[0][0].is_open:
                ended, record = sent.popleft()
                if ended.committed:
                    self._cluster.land(record)
                else:
                    partition.end += 1
            partition.end += 1


class TransactionalNode:
    """A program that sends commands until a transaction with them was committed, and waits for no answer."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self._rng = Random(world.rng.getrandbits(64))
        self._topic = TransactionalTopic(world.cluster)
        self._requests = 0

    def send(self, *commands: Command) -> None:
        """Send commands, without request ids or with."""
        if self._rng.random() < 0.5:
            self._attempt(commands)
            return
        self._requests += 1
        self._attempt([
            replace(command, request_id=f"transaction/{self._requests}/{place}")
            for place, command in enumerate(commands)
        ])  # fmt: skip

    def _attempt(self, commands: Any) -> None:
        """Commit, abort, or hang for a while and do either; what was aborted is tried again.

        Whoever gave its commands request ids need not even know: it tries again while the first still hangs.
        """
        transaction, chance = Transaction(), self._rng.random()
        for command in commands:
            self._topic.send(transaction, command)
        healed = self.world.healed
        if healed or chance < 0.6:
            self._end(transaction, commands, commit=True)
        elif chance < 0.75:
            self._end(transaction, commands, commit=False)
        else:
            self.world.counts["transactions-hung"] += 1
            commit, later_ms = self._rng.random() < 0.5, self._rng.randint(1, HANG_MS)
            unknown = bool(commands[0].request_id)
            self._after(later_ms, lambda: self._end(transaction, commands, commit=commit, again=not unknown))
            if unknown:
                self._after(AGAIN_MS, lambda: self._attempt(commands))

    def _end(self, transaction: Transaction, commands: Any, *, commit: bool, again: bool = True) -> None:
        self.world.counts["transactions-committed" if commit else "transactions-aborted"] += 1
        self._topic.end(transaction, commit=commit)
        if again and not commit:
            self._after(AGAIN_MS, lambda: self._attempt(commands))

    def _after(self, delay_ms: int, do: Any) -> None:
        self.world.cluster.at(self.world.now() + delay_ms, do)
