"""The group of a simulated log: who should own what, with all the lies that a real group tells.

- honest: a partition that moves is revoked, and assigned to its next owner when the former one polled again;
- late or missed revocations: it is assigned to the next owner at once, the former one hears of it later, or
  not before :meth:`SimulatedGroup.heal`, so that two think they own it;
- evictions: a member that has not polled for a session loses everything, and hears of it when it polls;
- moves and evictions without a reason.

:meth:`SimulatedGroup.holds` tells the truth: it stands for a round trip to the group's coordinator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from orchestrator.log.group import spread
from orchestrator.log.port import Change, Membership
from orchestrator.log.simulated_faults import Faults

SESSION_MS = 6_000
"""A member that was silent for so long is out: the group's session timeout on Kafka."""


class _Seat:
    """One incarnation of a member, as the group knows it."""

    def __init__(self, now_ms: int) -> None:
        self.seen_ms = now_ms
        self.out = False
        """It was evicted and has not heard of it."""
        self.news: list[Membership] = []
        self.late: list[tuple[int, Membership]] = []
        self.believes: dict[int, None] = {}

    def unsay(self, partition: int) -> None:
        """Forget what the member was to hear of a partition."""
        self.news = [news for news in self.news if news.partition != partition]
        self.late = [(due_ms, news) for due_ms, news in self.late if news.partition != partition]


class SimulatedGroup:
    """Spreads partitions over members; each change of assignments has a generation."""

    def __init__(self, partitions: int, rng: Random, now_ms: Callable[[], int], counts: Counter[str]) -> None:
        self.faults = Faults.none()
        self.generation = 0
        self._partitions = partitions
        self._rng = rng
        self._now_ms = now_ms
        self._counts = counts
        self._seats: dict[str, _Seat] = {}
        self._members: list[str] = []
        self._owner: dict[int, str] = {}
        self._revoked: dict[int, bool] = {}
        """Partitions that shall leave their owner, and whether it was told."""

    def join(self, name: str) -> None:
        """A new incarnation joins under a name of its own."""
        self._seats[name] = _Seat(self._now_ms())
        self._members.append(name)
        self._rebalance()

    def leave(self, name: str) -> None:
        """A member leaves at once; it hears of its revocations by its next poll."""
        seat = self._seats.get(name)
        if seat is None:
            return
        seat.news = [Membership(Change.REVOKED, p, self.generation) for p in seat.believes]
        seat.late = []
        self._remove(name)
        self._rebalance()

    def poll(self, name: str) -> list[Membership]:
        """A member polls: it is alive, is done with what it was told before, and hears what is new."""
        seat = self._seats.get(name)
        if seat is None:
            return []
        seat.seen_ms = self._now_ms()
        self.expire()
        if seat.out:
            seat.out = False
            seat.news = [Membership(Change.LOST, p, self.generation) for p in seat.believes]
            self._members.append(name)
            self._rebalance()
        self._acknowledge(name)
        due = [news for due_ms, news in seat.late if due_ms <= seat.seen_ms]
        seat.late = [(due_ms, news) for due_ms, news in seat.late if due_ms > seat.seen_ms]
        told = self._told(seat, due + seat.news)
        seat.news = []
        return told

    def holds(self, name: str, partition: int) -> bool:
        """Whether the partition is assigned to the member and shall not leave it."""
        self.expire()
        return self._owner.get(partition) == name and partition not in self._revoked

    def expire(self) -> None:
        """Evict members that were silent for a session."""
        limit = self._now_ms() - SESSION_MS
        for name in [name for name in self._members if self._seats[name].seen_ms < limit]:
            self._counts["session-expired"] += 1
            self.evict(name)

    def evict(self, name: str) -> None:
        """Take everything from a member; it hears of it, and joins again, when it polls."""
        if name in self._members:
            seat = self._seats[name]
            seat.out = True
            seat.news, seat.late = [], []
            self._remove(name)
            self._rebalance()

    def disturb(self, name: str) -> None:
        """Draw what goes wrong without a reason while a member polls."""
        if self._strikes("evictions"):
            self.evict(name)
        if len(self._members) > 1 and self._strikes("rebalances"):
            partition = self._rng.randrange(self._partitions)
            self._begin({partition: self._rng.choice(self._members)})

    def heal(self) -> None:
        """Tell everybody the truth: by their next polls, members believe what is so."""
        for name, seat in self._seats.items():
            seat.late = []
            for partition in seat.believes:
                if self._owner.get(partition) != name:
                    seat.unsay(partition)
                    self._tell(name, Change.LOST, partition)

    def _told(self, seat: _Seat, news: list[Membership]) -> list[Membership]:
        """What a member really hears of its news: nothing of partitions that it does not know to have."""
        told: list[Membership] = []
        for item in news:
            known = item.partition in seat.believes
            if item.change is Change.ASSIGNED:
                if known:  # the revocation in between was missed
                    told.append(Membership(Change.LOST, item.partition, item.generation))
                seat.believes[item.partition] = None
            elif known:
                del seat.believes[item.partition]
            else:
                continue
            if item.change is Change.REVOKED and item.partition in self._revoked:
                self._revoked[item.partition] = True
            told.append(item)
        return told

    def _acknowledge(self, name: str) -> None:
        done = [p for p, told in self._revoked.items() if told and self._owner[p] == name]
        for partition in done:
            del self._revoked[partition], self._owner[partition]
        if done:
            self._rebalance()

    def _remove(self, name: str) -> None:
        if name in self._members:
            self._members.remove(name)
        for partition in [p for p, owner in self._owner.items() if owner == name]:
            del self._owner[partition]
            self._revoked.pop(partition, None)

    def _rebalance(self) -> None:
        self._begin(spread(self._partitions, self._members, self._owner))

    def _begin(self, target: dict[int, str]) -> None:
        free = {p: name for p, name in target.items() if p not in self._revoked}
        moves = {p: name for p, name in free.items() if self._owner.get(p) != name}
        if moves:
            self.generation += 1
        for partition, name in moves.items():
            owner = self._owner.get(partition)
            if owner is None or self._strikes("missed_revocations"):
                self._assign(partition, name)
            elif self._strikes("late_revocations"):
                self._assign(partition, name)
                due_ms = self._now_ms() + self._rng.randint(1, self.faults.delay_ms)
                late = (due_ms, Membership(Change.REVOKED, partition, self.generation))
                self._seats[owner].late.append(late)
            else:
                self._revoked[partition] = False
                self._tell(owner, Change.REVOKED, partition)

    def _assign(self, partition: int, name: str) -> None:
        for concerned in (self._owner.get(partition, name), name):
            self._seats[concerned].unsay(partition)
        self._owner[partition] = name
        self._tell(name, Change.ASSIGNED, partition)

    def _tell(self, name: str, change: Change, partition: int) -> None:
        self._seats[name].news.append(Membership(change, partition, self.generation))

    def _strikes(self, fault: str) -> bool:
        chance: float = getattr(self.faults, fault)
        if self._rng.random() >= chance:
            return False
        self._counts[fault] += 1
        return True
