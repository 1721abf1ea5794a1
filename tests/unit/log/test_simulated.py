"""What the simulated log does when things go wrong; its calm side is in tests/conformance/log."""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec
import pytest

from orchestrator.errors import LogError
from orchestrator.log.faults import Fate, FaultHook
from orchestrator.log.port import Appender, Change, Membership, Outcome
from orchestrator.log.simulated import Faults, SimulatedCluster, SimulatedMember
from orchestrator.log.simulated_group import SESSION_MS

SEEDS = range(40)
ROUGH = Faults(
    lost=0.05,
    unseen=0.05,
    silent=0.02,
    refused=0.02,
    delayed=0.1,
    duplicated=0.1,
    rebalances=0.05,
    evictions=0.02,
)


class World:
    """A cluster, its clock, and three members that all append to the same partition."""

    def __init__(self, seed: int, faults: Faults = ROUGH, hook: FaultHook | None = None) -> None:
        self.now_ms = 1_000_000
        self.rng = Random(seed)
        self.cluster = SimulatedCluster(
            self.rng, lambda: self.now_ms, faults=faults, hook=hook or FaultHook(), tombstone_ms=100
        )

    def member(self, name: str) -> SimulatedMember:
        member = self.cluster.member(name)
        member.join()
        return member

    def landed(self, topic: str = "history", partition: int = 0) -> list[bytes]:
        return [record.key for record in self.cluster.partition(topic, partition).read(0, 10**9)]

    def calm(self) -> None:
        """Let everything land that is under way."""
        self.cluster.heal()
        while (due_ms := self.cluster.next_due_ms()) is not None:
            self.now_ms = max(self.now_ms, due_ms)
            self.cluster.settle()


class Writer:
    """Appends numbered records through one ordered appender, and abandons it after its first failure."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.appenders = 0
        self.delivered: list[bytes] = []
        self.join()

    def join(self) -> None:
        self.read: list[int] = []
        self.member = self.world.member(self.name)
        self.member.seek("history", 0, 0)
        self.outgoing = self.member.appender(ordered=False)
        self.take_appender()

    def take_appender(self) -> None:
        self.appender: Appender = self.member.appender(ordered=True)
        self.appenders += 1
        self.number = 0

    def step(self) -> None:
        for _ in range(self.world.rng.randint(0, 3)):
            key = b"%b/%d/%d" % (self.name.encode(), self.appenders, self.number)
            self.number += 1
            self.appender.append("history", 0, key, b"v", token=key)
        self.outgoing.append("commands", 0, b"k", b"v")
        polled = self.member.poll(0)
        self.read += [record.offset for record in polled.records]
        deliveries = [d for d in polled.deliveries if d.token is not None]
        self.delivered += [d.token for d in deliveries if d.outcome is Outcome.DELIVERED]
        if any(d.outcome is not Outcome.DELIVERED for d in deliveries) or self.world.rng.random() < 0.02:
            self.appender.abandon()
            self.take_appender()
        if self.world.rng.random() < 0.01:
            self.member.die()
            self.join()


def run(seed: int, faults: Faults = ROUGH, steps: int = 300) -> tuple[World, list[Writer]]:
    world = World(seed, faults)
    writers = [Writer(world, name) for name in ("a", "b", "c")]
    for _ in range(steps):
        world.rng.choice(writers).step()
        world.now_ms += world.rng.choice((0, 1, 5, 50, 500))
    world.calm()
    return world, writers


def test_one_seed_is_one_run() -> None:
    def trace(seed: int) -> tuple[object, ...]:
        world, writers = run(seed)
        records = [world.cluster.partition("history", p).read(0, 10**9) for p in range(4)]
        return records, [writer.delivered for writer in writers], world.cluster.counts

    assert trace(3) == trace(3)
    assert trace(3) != trace(4)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_ordered_appender_that_is_abandoned_at_its_first_failure_leaves_a_prefix(seed: int) -> None:
    world, writers = run(seed, msgspec.structs.replace(ROUGH, cleaned=0.0))
    landed = world.landed()
    assert len(landed) == len(set(landed))
    by_appender: dict[bytes, list[int]] = {}
    for key in landed:
        appender, _, number = key.rpartition(b"/")
        by_appender.setdefault(appender, []).append(int(number))
    assert by_appender
    for numbers in by_appender.values():
        assert numbers == list(range(len(numbers)))
    for writer in writers:
        assert set(writer.delivered) <= set(landed)
        assert writer.read == sorted(set(writer.read))


def test_every_fault_happens() -> None:
    counts: Counter[str] = Counter()
    for seed in SEEDS:
        counts += run(seed)[0].cluster.counts
    rates = {name for name in Faults.__struct_fields__ if not name.endswith("_ms")}
    # A stray needs an appender that is used on after a failure: see below. Writers do not read. The last two
    # are publishers'.
    assert rates - {"stray", "unanswered", "hanging", "denied"} <= counts.keys()
    assert counts["session-expired"]


def test_none_is_calm() -> None:
    world, writers = run(1, Faults.none())
    assert set(world.cluster.counts) <= {"session-expired"}
    for writer in writers:
        assert writer.appenders >= 1


def test_who_goes_on_after_an_unknown_outcome_may_leave_a_gap() -> None:
    gaps = 0
    for seed in SEEDS:
        world = World(seed, msgspec.structs.replace(Faults.none(), lost=0.1, stray=0.5))
        member = world.member("m")
        appender = member.appender(ordered=True)
        for n in range(30):
            appender.append("history", 0, b"%d" % n, b"v")
            member.poll(0)
            world.now_ms += 100
        world.calm()
        numbers = [int(key) for key in world.landed()]
        gaps += numbers != list(range(len(numbers)))
    assert gaps > len(SEEDS) // 2


def test_unordered_appends_are_repeated_and_overtake() -> None:
    world = World(1, msgspec.structs.replace(Faults.none(), duplicated=0.2, delayed=0.2))
    member = world.member("m")
    appender = member.appender(ordered=False)
    for n in range(100):
        appender.append("commands", 0, b"%d" % n, b"v")
    member.poll(0)
    world.calm()
    numbers = [int(key) for key in world.landed("commands")]
    assert set(numbers) == set(range(100))
    assert len(numbers) > 105
    assert numbers != sorted(numbers)


def test_what_a_dead_process_had_under_way_lands_later() -> None:
    world = World(1, msgspec.structs.replace(Faults.none(), late=1.0))
    member = world.member("m")
    member.appender(ordered=True).append("history", 0, b"sent", b"v")
    member.poll(0)
    member.appender(ordered=True).append("history", 0, b"not-sent", b"v")
    member.die()
    with pytest.raises(LogError, match="m#1 is dead"):
        member.poll(0)
    world.now_ms += 10
    world.cluster.settle()
    assert world.landed() == []
    world.calm()
    assert world.landed() == [b"sent"]


def test_silence_ends_nothing_but_the_acknowledgements() -> None:
    world = World(1, msgspec.structs.replace(Faults.none(), silent=1.0))
    member = world.member("m")
    member.seek("history", 0, 0)
    member.appender(ordered=True).append("history", 0, b"k", b"v")
    member.poll(0)
    world.now_ms += 100_000
    polled = member.poll(0)
    assert (len(polled.records), polled.deliveries) == (1, [])


class TestMembership:
    def believed(self, news: list[Membership], believed: set[int]) -> None:
        for change, partition, _ in news:
            if change is Change.ASSIGNED:
                assert partition not in believed, "assigned twice without a loss in between"
                believed.add(partition)
            else:
                believed.remove(partition)

    @pytest.mark.parametrize("seed", SEEDS)
    def test_it_lies_but_never_nonsense_and_heals(self, seed: int) -> None:
        world = World(seed, msgspec.structs.replace(ROUGH, late_revocations=0.3, missed_revocations=0.3))
        names = ["a", "b", "c"]
        members = {name: world.member(name) for name in names}
        beliefs: dict[str, set[int]] = {name: set() for name in names}

        def poll(name: str) -> None:
            self.believed(members[name].poll(0).memberships, beliefs[name])

        for _ in range(400):
            name = world.rng.choice(names)
            poll(name)
            world.now_ms += world.rng.choice((0, 10, 1_000))
            if world.rng.random() < 0.02:
                members[name].die()
                members[name] = world.member(name)
                beliefs[name] = set()
            owners = [sum(members[n].confirm_membership(p) for n in names) for p in range(4)]
            assert all(count <= 1 for count in owners)
        world.cluster.heal()
        for _ in range(100):
            for name in names:
                poll(name)
            world.now_ms += SESSION_MS // 10
        assert sorted(p for believed in beliefs.values() for p in believed) == [0, 1, 2, 3]
        for name in names:
            assert beliefs[name] == {p for p in range(4) if members[name].confirm_membership(p)}

    def test_two_members_can_believe_in_one_partition(self) -> None:
        world = World(1, msgspec.structs.replace(Faults.none(), missed_revocations=1.0))
        first = world.member("a")
        assert len(first.poll(0).memberships) == 4
        second = world.member("b")
        assert len(second.poll(0).memberships) == 2
        assert first.poll(0).memberships == []
        assert sum(first.confirm_membership(p) for p in range(4)) == 2
        world.cluster.heal()
        assert [m.change for m in first.poll(0).memberships] == [Change.LOST] * 2

    def test_a_silent_member_loses_everything_and_comes_back(self) -> None:
        world = World(1, Faults.none())
        first, second = world.member("a"), world.member("b")
        for _ in range(4):
            first.poll(0), second.poll(0)
        world.now_ms += SESSION_MS // 2 + 1
        second.poll(0)
        world.now_ms += SESSION_MS // 2 + 1
        assert [m.change for m in second.poll(0).memberships] == [Change.ASSIGNED] * 2
        assert not any(first.confirm_membership(p) for p in range(4))
        assert {m.change for m in first.poll(0).memberships} == {Change.LOST}
        for _ in range(4):
            first.poll(0), second.poll(0)
        assert sum(first.confirm_membership(p) for p in range(4)) == 2


def test_the_cleaner_keeps_what_is_last() -> None:
    for seed in SEEDS:
        world = World(seed, Faults.none())
        member = world.member("m")
        appender = member.appender(ordered=True)
        truth: dict[bytes, bytes | None] = {}
        for n in range(100):
            key = b"%d" % world.rng.randrange(5)
            truth[key] = None if world.rng.random() < 0.3 else b"%d" % n
            appender.append("history", 0, key, truth[key])
            member.poll(0)
            world.now_ms += 10
            if n % 10 == 0:
                world.cluster.clean("history", 0)
        world.calm()
        end = world.cluster.partition("history", 0).end
        world.cluster.clean("history", 0, up_to=end)
        records = world.cluster.partition("history", 0).read(0, 1_000)
        assert records[-1].offset == end - 1
        found = {record.key: record.value for record in records}
        assert {k: v for k, v in found.items() if v} == {k: v for k, v in truth.items() if v}
        assert len(records) <= len(truth) + 1


def test_the_hook_goes_before_chance() -> None:
    class Refuse(FaultHook):
        def fate(self, topic: str, partition: int, key: bytes) -> Fate:
            return Fate.REFUSE

    world = World(1, Faults.none(), Refuse())
    member = world.member("m")
    member.appender(ordered=False).append("history", 0, b"k", b"v", token=1)
    member.poll(0)
    world.now_ms += 100
    assert [d.outcome for d in member.poll(0).deliveries] == [Outcome.REFUSED]


def test_next_due_tells_when_to_look_again() -> None:
    world = World(1, Faults.none())
    assert world.cluster.next_due_ms() is None
    member = world.member("m")
    member.appender(ordered=True).append("history", 0, b"k", b"v")
    member.poll(0)
    due_ms = world.cluster.next_due_ms()
    assert due_ms is not None
    while (due_ms := world.cluster.next_due_ms()) is not None:
        world.now_ms = max(world.now_ms + 1, due_ms)
        world.cluster.settle()
    assert world.landed() == [b"k"]
    assert len(member.poll(0).deliveries) == 1
