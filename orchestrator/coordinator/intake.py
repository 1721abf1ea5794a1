"""Commands that others sent within transactions of their own: from ``commands-tx`` to ``commands``.

They have a topic to themselves, since a transaction that nobody ends holds up whoever reads committed records
behind it: so it holds up other transactions, and no workflow. Nothing is decided there. The owner of a
partition of ``commands-tx`` forwards what was committed, as it does with a command on a wrong partition, and
history says how far it has come (``marks.commands_tx``).

Who dies in between leaves commands that are forwarded again. Each keeps the request id that it has by its
place, so the second one is a repeat.
"""

from __future__ import annotations

from orchestrator.log.port import Log
from orchestrator.log.topics import COMMANDS_TX

MAX_HELD = 5_000
"""Commands on their way in one partition: above it no more are read, below half of it they are again."""


class Intake:
    """How far one partition of ``commands-tx`` was forwarded."""

    def __init__(self, partition: int, mark: int) -> None:
        """Go on at ``mark``; nothing is read before :meth:`pace` says so."""
        self.held: dict[int, float] = {}
        """Offsets of commands that were forwarded or set aside, which is not acknowledged yet; since when."""
        self._partition = partition
        self._next = mark
        self._follows = False

    @property
    def mark(self) -> int:
        """Below it, all have arrived where they are decided, or among the dead letters."""
        return min(self.held, default=self._next)

    def take(self, offset: int) -> bool:
        """The next record; False if it was taken before."""
        if offset < self._next:
            return False
        self._next = offset + 1
        return True

    def pace(self, log: Log) -> None:
        """Read on, or wait until what was read has arrived. For owners."""
        if self._follows and len(self.held) >= MAX_HELD:
            self.stop(log)
        elif not self._follows and len(self.held) <= MAX_HELD // 2:
            log.seek(COMMANDS_TX, self._partition, self._next)
            self._follows = True

    def stop(self, log: Log) -> None:
        """Read no more."""
        log.unseek(COMMANDS_TX, self._partition)
        self._follows = False
