"""The next deadlines, held against a model that keeps all of them in a list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.engine.state import Changes, Deadline, DeadlineKind
from orchestrator.store import keys, timers
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.rows import Row
from orchestrator.store.timers import HORIZON_MS, Deadlines

RUN = "0" * 32
NOW_MS = 1_700_000_000_000


def at(ms: int, owner: int = 1) -> Deadline:
    return Deadline(NOW_MS + ms, DeadlineKind.TIMER, owner)


class Model:
    """The deadlines and their rows, as an applied turn changes them."""

    def __init__(self, folder: Path) -> None:
        self.store = PartitionStore(folder / "p", log_id="log")
        self.deadlines = Deadlines(self.store)

    def commit(self, set_: list[Deadline], cleared: list[Deadline]) -> None:
        rows = [Row(keys.deadline(RUN, due), b"wf") for due in set_]
        rows += [Row(keys.deadline(RUN, due), None) for due in cleared]
        self.store.apply(rows, self.store.checkpoint)
        self.deadlines.commit("wf", RUN, Changes(deadlines_set=set_, deadlines_cleared=cleared))

    def due(self, ms: int, limit: int = 1_000_000) -> list[Deadline]:
        return [found.deadline for found in self.deadlines.due(NOW_MS + ms, limit)]


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    model = Model(tmp_path)
    yield model
    model.store.close()


def test_due_in_order_of_time_at_most_the_limit(model: Model) -> None:
    model.commit([at(30, 3), at(10, 1), at(20, 2)], [])
    assert model.due(9) == []
    assert model.due(30, limit=2) == [at(10, 1), at(20, 2)]
    assert model.due(30) == [at(30, 3)]
    assert model.due(30) == []


def test_what_was_set_before_the_start_is_found(model: Model) -> None:
    model.commit([at(5), at(HORIZON_MS * 3, 2)], [])
    model.deadlines = Deadlines(model.store)
    assert model.due(10) == [at(5)]
    model.commit([], [at(5)])
    assert model.due(HORIZON_MS * 3) == [at(HORIZON_MS * 3, 2)]


@pytest.mark.parametrize("offset", [-1, 0, 1])
def test_set_below_at_and_above_the_horizon(model: Model, offset: int) -> None:
    assert model.due(0) == []  # the heap reaches to the horizon now
    due = at(HORIZON_MS + offset)
    model.commit([due], [])
    found = [model.due(ms) for ms in range(HORIZON_MS - 2, HORIZON_MS + 3)]
    assert found[offset + 2] == [due]
    assert sum(map(len, found)) == 1


def test_far_deadlines_cost_no_memory(model: Model) -> None:
    model.due(0)
    model.commit([at(HORIZON_MS * 2 + n, n) for n in range(100)], [])
    assert len(model.deadlines._heap) == 0
    assert model.deadlines.next_ms() is None


def test_a_cleared_deadline_is_not_due_and_is_swept(model: Model) -> None:
    model.due(0)
    many = [at(100 + n, n) for n in range(3_000)]
    model.commit(many, [])
    model.commit([], many[1:])
    assert len(model.deadlines._heap) <= 1_003
    assert model.deadlines.next_ms() == NOW_MS + 100
    assert model.due(10_000) == [many[0]]


def test_set_again_after_it_was_cleared(model: Model) -> None:
    model.due(0)
    for _ in range(3):
        model.commit([at(50)], [])
        model.commit([], [at(50)])
    model.commit([at(50)], [])
    assert model.due(50) == [at(50)]
    assert model.due(50) == []


def test_next_is_the_soonest(model: Model) -> None:
    model.due(0)
    model.commit([at(70, 1), at(50, 2)], [])
    assert model.deadlines.next_ms() == NOW_MS + 50


def test_pages_of_the_load_limit_lose_and_repeat_nothing(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "LOAD_LIMIT", 7)
    many = [at(n // 5, n) for n in range(100)]  # five at each time: pages end in the midst of one
    model.commit(many, [])
    model.deadlines = Deadlines(model.store)
    found: list[Deadline] = []
    for _ in range(200):
        due = model.due(1_000, limit=3)
        model.commit([], due)
        found += due
    assert found == sorted(found)
    assert sorted(found) == sorted(many)


def test_what_is_set_in_the_midst_of_a_loaded_page_is_not_lost(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key is below the resume key, and its time is the horizon."""
    monkeypatch.setattr(timers, "LOAD_LIMIT", 1)
    model.commit([at(100, 5)], [])
    model.deadlines = Deadlines(model.store)
    assert model.due(0) == []
    model.commit([at(100, 1)], [])
    assert model.due(100) == [at(100, 1), at(100, 5)]


def test_what_was_taken_is_not_loaded_again_before_its_turn_is_committed(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "LOAD_LIMIT", 2)
    many = [at(n, n) for n in range(9)]
    model.commit(many, [])
    model.deadlines = Deadlines(model.store)
    found = [due for _ in range(9) for due in model.due(100)]
    assert found == many


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), load_limit=st.sampled_from([1, 3, 10_000]))
def test_no_deadline_is_lost_late_early_or_twice(seed: int, load_limit: int) -> None:
    rng = Random(seed)
    before = timers.LOAD_LIMIT
    timers.LOAD_LIMIT = load_limit
    try:
        with TemporaryDirectory() as folder:
            _compare(Model(Path(folder)), rng, load_limit)
    finally:
        timers.LOAD_LIMIT = before


def _compare(model: Model, rng: Random, load_limit: int) -> None:
    standing: set[Deadline] = set()
    clock_ms, owner = 0, 0
    for _ in range(60):
        move = rng.random()
        if move < 0.45:
            new = []
            for _ in range(rng.randint(1, 4)):
                owner += 1
                in_ms = rng.choice([0, 1, 500, HORIZON_MS // 2, HORIZON_MS - 1, HORIZON_MS, HORIZON_MS + 1])
                new.append(at(clock_ms + in_ms * rng.randint(1, 2), owner))
            gone = rng.sample(sorted(standing), min(len(standing), rng.randint(0, 2)))
            model.commit(new, gone)
            standing = (standing | set(new)) - set(gone)
        elif move < 0.55:
            model.deadlines = Deadlines(model.store)  # the claim has changed
        else:
            clock_ms += rng.choice([0, 1, 499, 1_000, HORIZON_MS // 2, HORIZON_MS])
            expected = sorted(due for due in standing if due.at_ms <= NOW_MS + clock_ms)
            found: list[Deadline] = []
            for _ in range(len(expected) + 3 if load_limit < 10 else 2):
                due = model.due(clock_ms)
                found += due
                model.commit([], due)
            assert sorted(found) == expected
            standing -= set(found)
    model.store.close()
