"""Who owns which partition: the rule that spreads them, and the group of an embedded log's members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from orchestrator.log.port import Change, Membership


def spread(partitions: int, members: Sequence[str], current: Mapping[int, str]) -> dict[int, str]:
    """Spread partitions evenly over members, moving as few as possible from where they are now."""
    held: dict[str, list[int]] = {name: [] for name in members}
    for partition in range(partitions):
        if current.get(partition) in held:
            held[current[partition]].append(partition)
    share, rest = divmod(partitions, max(1, len(members)))
    richest_first = sorted(members, key=lambda name: -len(held[name]))
    quota = {name: share + (place < rest) for place, name in enumerate(richest_first)}
    target = {p: name for name in members for p in held[name][: quota[name]]}
    free = (p for p in range(partitions) if p not in target)
    missing = [name for name in members for _ in range(quota[name] - len(held[name]))]
    return target | dict(zip(list(free), missing, strict=False))


class Group:
    """The members of one embedded log, rebalanced cooperatively.

    A partition that moves is revoked first; it is assigned to its next owner when the former one polls
    again after it was told. The first assignment has the given generation, each later change one of its
    own. Not thread-safe.
    """

    def __init__(self, partitions: int, generation: int, next_generation: Callable[[], int]) -> None:
        self._partitions = partitions
        self._generation = generation
        self._untouched = True
        self._next_generation = next_generation
        self._members: list[str] = []
        self._owner: dict[int, str] = {}
        self._revoked: dict[int, bool] = {}
        """Partitions that shall leave their owner, and whether it was told."""
        self._news: dict[str, list[Membership]] = {}

    def join(self, name: str) -> None:
        """Add a member."""
        if name not in self._members:
            self._members.append(name)
            self._rebalance()

    def leave(self, name: str) -> None:
        """Remove a member at once; the revocations of all its partitions are its next news."""
        if name not in self._members:
            return
        self._members.remove(name)
        mine = [p for p, owner in self._owner.items() if owner == name]
        for partition in mine:
            if partition not in self._revoked:
                self._tell(name, Change.REVOKED, partition)
            self._revoked.pop(partition, None)
            del self._owner[partition]
        self._rebalance()

    def acknowledge(self, name: str) -> None:
        """The member polls: it is done with what it was told before."""
        if not self._revoked:
            return
        done = [p for p, told in self._revoked.items() if told and self._owner[p] == name]
        for partition in done:
            del self._revoked[partition], self._owner[partition]
        if done:
            self._rebalance()

    def has_news(self, name: str) -> bool:
        """Whether there is something to tell the member."""
        return bool(self._news.get(name))

    def take_news(self, name: str) -> list[Membership]:
        """What the member is to be told, once."""
        news = self._news.pop(name, [])
        for change, partition, _ in news:
            if change is Change.REVOKED and partition in self._revoked:
                self._revoked[partition] = True
        return news

    def holds(self, name: str, partition: int) -> bool:
        """Whether the partition is assigned to the member and shall not leave it."""
        return self._owner.get(partition) == name and partition not in self._revoked

    def _rebalance(self) -> None:
        target = spread(self._partitions, self._members, self._owner)
        moves = {
            p: name for p, name in target.items() if self._owner.get(p) != name and p not in self._revoked
        }
        if not moves:
            return
        if not self._untouched:
            self._generation = self._next_generation()
        self._untouched = False
        for partition, name in moves.items():
            owner = self._owner.get(partition)
            if owner is None:
                self._owner[partition] = name
                self._tell(name, Change.ASSIGNED, partition)
            else:
                self._revoked[partition] = False
                self._tell(owner, Change.REVOKED, partition)

    def _tell(self, name: str, change: Change, partition: int) -> None:
        self._news.setdefault(name, []).append(Membership(change, partition, self._generation))
