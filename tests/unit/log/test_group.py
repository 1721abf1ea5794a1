from __future__ import annotations

from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.log.group import Group, spread
from orchestrator.log.port import Change

NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=5)


@given(st.integers(0, 20), NAMES, st.dictionaries(st.integers(0, 19), st.sampled_from("abcdefgh")))
def test_spread_is_even_and_moves_as_little_as_possible(
    partitions: int, members: list[str], current: dict[int, str]
) -> None:
    target = spread(partitions, members, current)
    if not members:
        assert target == {}
        return
    assert sorted(target) == list(range(partitions))
    sizes = [list(target.values()).count(name) for name in members]
    assert max(sizes) - min(sizes) <= 1
    held = [sum(1 for p in range(partitions) if current.get(p) == name) for name in members]
    share, rest = divmod(partitions, len(members))
    quotas = [share + (place < rest) for place in range(len(members))]
    most = sum(min(h, q) for h, q in zip(sorted(held, reverse=True), quotas, strict=True))
    assert sum(1 for p, name in target.items() if current.get(p) == name) == most


def changes(group: Group, name: str) -> list[tuple[Change, int]]:
    return [(news.change, news.partition) for news in group.take_news(name)]


def test_a_partition_moves_when_its_owner_polled_after_it_was_told() -> None:
    group = Group(2, 5, count(6).__next__)
    group.join("a")
    assert [news.generation for news in group.take_news("a")] == [5, 5]
    group.join("b")
    group.acknowledge("a")  # this poll began before it was told
    assert not group.has_news("b")
    [revoked] = group.take_news("a")
    assert (revoked.change, revoked.generation) == (Change.REVOKED, 6)
    assert not group.holds("a", revoked.partition)
    assert not group.has_news("b")
    group.acknowledge("a")
    [assigned] = group.take_news("b")
    assert assigned == (Change.ASSIGNED, revoked.partition, 7)
    assert group.holds("b", revoked.partition)


def test_who_leaves_loses_everything_at_once() -> None:
    group = Group(3, 1, count(2).__next__)
    group.join("a")
    group.take_news("a")
    group.join("b")
    group.take_news("a")
    group.leave("a")  # one partition was revoked already
    assert {change for change, _ in changes(group, "a")} == {Change.REVOKED}
    assert sorted(p for _, p in changes(group, "b")) == [0, 1, 2]
    assert all(group.holds("b", p) for p in range(3))
    group.leave("a")
    group.leave("stranger")


def test_joining_again_changes_nothing() -> None:
    group = Group(2, 1, count(2).__next__)
    group.join("a")
    group.take_news("a")
    group.join("a")
    assert not group.has_news("a")
