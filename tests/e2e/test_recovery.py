"""SIGKILL, at every point of a step and at any time, loses nothing and repeats nothing that was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from orchestrator.coordinator.runtime import STEP_POINTS
from tests.e2e.autopsy import Autopsy
from tests.e2e.steady import Notes
from tests.e2e.victim import Life, Victims
from tests.simulation.checkers import Violation

pytestmark = pytest.mark.timeout(180)

SEEDS = range(1, 6)
KILLS = 20
"""Per seed: 100 random kills in all."""

KILLS_AT_START = 5
"""Of these: while the engine starts, which takes some 0.2 s. The others while it works."""

KILL_AFTER_S = (0.0, 0.3)

VISITS = {"claimed": (1, 3, 4), "owned": (1, 3, 4)}
"""An undisturbed life claims each of its four partitions once."""

WORKING_VISITS = (1, 4, 30)


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    with Victims() as server:
        yield server


def finish(victims: Victims, folder: Path) -> Autopsy:
    """A last life, that does what is left; then look at what there is.

    Kills that hit the trial of the same run twice by chance have blamed it: it is tried again once after
    each start, so it may take one more.
    """
    death = victims.live(Life(str(folder), finish=True))
    if death.ended_by_server:
        death = victims.live(Life(str(folder), finish=True))
    assert death.code == 0, f"the last life ended with {death}:\n{(folder / 'output').read_text()[-5_000:]}"
    return Autopsy.of_engine(folder)


@pytest.mark.parametrize("point", STEP_POINTS)
def test_a_kill_at_each_point_of_a_step(victims: Victims, tmp_path: Path, point: str) -> None:
    folder = tmp_path / "victim"
    visits = VISITS.get(point, WORKING_VISITS)
    for visit in visits:
        death = victims.live(Life(str(folder), point=point, visit=visit))
        assert (death.code, death.ended_by_server) == (-9, False), f"{point!r} was not hit: {death}"
    assert Notes.read(folder / "visits") == [[point, str(visit)] for visit in visits]
    autopsy = finish(victims, folder)
    autopsy.judge()
    assert not (folder / "output").read_text()
    if point not in VISITS:
        assert autopsy.facts.runs, "it was killed before it did anything"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_kills_at_random_times(victims: Victims, tmp_path: Path, seed: int) -> None:
    folder = tmp_path / "victim"
    random = Random(seed)
    at_start = random.sample(range(KILLS), KILLS_AT_START)
    for kill in range(KILLS):
        after_s = random.uniform(*KILL_AFTER_S)
        death = victims.live(Life(str(folder), kill_after_s=after_s, when_ready=kill not in at_start))
        assert (death.code, death.ended_by_server) == (-9, True), (folder / "output").read_text()[-5_000:]
    autopsy = finish(victims, folder)
    try:
        autopsy.judge()
    except Violation as violation:
        pytest.fail(f"{violation}\nrepeat it: python -m pytest {__file__} -k 'random_times and {seed}'")
    lives = {line.generation for line in autopsy.ledger}
    assert len(lives) >= KILLS / 4, "most lives ended before anything ran"
