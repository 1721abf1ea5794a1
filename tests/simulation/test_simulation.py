"""Seeds, the points of a step, and the proof that the checkers can fail.

``SIMULATION_SEEDS=1000`` runs more seeds, ``SIMULATION_FIRST=500`` begins elsewhere.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from orchestrator.coordinator.runtime import STEP_POINTS
from orchestrator.workflow import determinism
from tests.simulation import checkers
from tests.simulation.mutations import MUTATIONS, applied
from tests.simulation.world import World

SEEDS = int(os.environ.get("SIMULATION_SEEDS", "50"))
FIRST = int(os.environ.get("SIMULATION_FIRST", "1"))

MUTATED_SEEDS = 60
"""A rule that was taken away must be missed within so many seeds."""


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    determinism.install()
    yield
    determinism.uninstall()


def live(world: World) -> None:
    """Run a world; a failure says how to repeat it."""
    try:
        world.run()
    except BaseException as error:
        error.add_note(f"repeat it: PYTHONHASHSEED=0 python -m tests.simulation {world.seed}")
        error.add_note("\n".join(world.notes[-20:]))
        raise


@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
def test_whatever_happens_nothing_is_lost_or_done_twice(seed: int) -> None:
    live(World(seed))


@pytest.mark.parametrize("point", STEP_POINTS)
def test_a_crash_at_each_point_of_a_step_loses_nothing(point: str) -> None:
    for seed in range(1, 10):
        world = World(10_000 + seed, points=(point,))
        live(world)
        if world.visited.get(point):
            return
    pytest.fail(f"no coordinator ever crashed at {point!r}")


def test_transactions_commit_abort_and_hang() -> None:
    counts: Counter[str] = Counter()
    for seed in range(20_001, 20_010):
        world = World(seed)
        live(world)
        counts.update(world.counts)
        if all(counts[f"transactions-{fate}"] for fate in ("committed", "aborted", "hung")):
            return
    pytest.fail(f"not each of it has happened: {counts}")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: str(mutation.__name__))
def test_a_rule_that_is_taken_away_is_missed(mutation: Callable[[Callable[..., None]], None]) -> None:
    with applied(mutation):
        for seed in range(1, MUTATED_SEEDS + 1):
            try:
                World(seed).run()
            except (checkers.Violation, AssertionError, ValueError, KeyError):
                return
    pytest.fail(f"{MUTATED_SEEDS} seeds passed without the rule that {mutation.__doc__}")


def test_a_seed_gives_the_same_run_twice() -> None:
    first, second = World(7), World(7)
    live(first)
    live(second)
    assert (first.now(), first.ledger, first.counts) == (second.now(), second.ledger, second.counts)
