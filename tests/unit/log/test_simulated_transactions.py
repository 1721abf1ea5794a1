"""Publishers on the simulated log under faults: who keeps to the port's contract publishes exactly once."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from orchestrator.errors import LogError
from orchestrator.log.port import Outcome, Publisher
from orchestrator.log.simulated import Faults, SimulatedCluster
from orchestrator.log.simulated_transactions import Transactions
from orchestrator.log.topics import USER_TOPICS
from orchestrator.protocol.publications import Publication

SEEDS = range(40)
ROUGH = Faults(lost=0.05, unseen=0.05, denied=0.05, hanging=0.1)


class Rival:
    """Publishes the numbers from 0 on, as one of two that do, by nothing but the mark."""

    def __init__(self, cluster: SimulatedCluster, rng: Random, name: str) -> None:
        self.cluster, self.rng, self.name = cluster, rng, name
        self.member = cluster.member(name)
        self.publisher: Publisher | None = None

    def step(self) -> None:
        if self.rng.random() < 0.02:
            self.member.die()
            self.member, self.publisher = self.cluster.member(self.name), None
        try:
            if self.publisher is None:
                publisher = self.member.publisher(0)
                self.next = int(publisher.open() or 0)
                self.publisher = publisher
                return
            until = self.next + self.rng.randint(0, 3)
            numbers = [Publication(topic="t", key=b"%d" % n, value=b"") for n in range(self.next, until)]
            delivered = self.publisher.publish(numbers, b"%d" % until).outcome is Outcome.DELIVERED
        except LogError:
            delivered = False
        if delivered:
            self.next = until
        elif self.publisher is not None:
            self.publisher.close()
            self.publisher = None


def run(seed: int) -> tuple[list[int], Counter[str]]:
    """The numbers as they stand on the topic, and the faults that there were."""
    clock = [0]
    rng = Random(seed)
    cluster = SimulatedCluster(rng, lambda: clock[0], faults=ROUGH)
    rivals = [Rival(cluster, rng, name) for name in "ab"]
    for _ in range(400):
        rng.choice(rivals).step()
        clock[0] += rng.choice((0, 5, 1_000))
        cluster.settle()
    records = cluster.partition(USER_TOPICS + "t", 0).read(0, 10**9)
    return [int(record.key) for record in records], cluster.counts


def test_two_publishers_that_keep_to_the_mark_publish_exactly_once() -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        numbers, faults = run(seed)
        assert numbers == list(range(len(numbers))), f"seed {seed}"
        assert len(numbers) > 20
        counts += faults
    assert {"hanging", "lost", "unseen", "denied"} <= counts.keys()


@pytest.mark.parametrize("rule", ["is_owner", "decide"])
def test_it_takes_the_fence_and_the_decision_of_what_hangs(monkeypatch: Any, rule: str) -> None:
    """Without either, some seed publishes twice."""
    if rule == "is_owner":
        monkeypatch.setattr(Transactions, "is_owner", lambda self, partition, publisher: True)
    else:
        fence = Transactions.fence

        def fence_alone(self: Transactions, partition: int, publisher: Any) -> None:
            hanging, self._hanging = self._hanging, {}
            fence(self, partition, publisher)
            self._hanging = hanging

        monkeypatch.setattr(Transactions, "fence", fence_alone)
    assert any(numbers != list(range(len(numbers))) for numbers, _ in map(run, SEEDS))
