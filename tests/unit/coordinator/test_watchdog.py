"""User code that does not give way. All loops here end by themselves, should the watchdog fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import workflow
from orchestrator.coordinator import watchdog
from orchestrator.coordinator.watchdog import Abandoned, Watchdog
from orchestrator.protocol import events as e
from orchestrator.workflow.loop import Evicted

from .kit import Bench, query, start

BOUND_S = 20.0
"""By far longer than any eviction takes here."""


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watchdog, "WALL_LIMIT_S", 0.2)
    monkeypatch.setattr(watchdog, "CPU_LIMIT_S", 0.1)
    monkeypatch.setattr(watchdog, "ABANDON_AFTER_S", 0.5)
    monkeypatch.setattr(watchdog, "_TICK_S", 0.02)


class Entered:
    """A run whose code is entered."""

    workflow_id = "wf"

    def __init__(self) -> None:
        self.evicted = 0

    def evict(self) -> None:
        self.evicted += 1


@pytest.fixture
def hung() -> list[str]:
    return []


@pytest.fixture
def dog(hung: list[str]) -> Iterator[Watchdog]:
    dog = Watchdog(hung.append)
    yield dog
    dog.stop()


def spin(seconds: float) -> None:
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def watched(dog: Watchdog, seconds: float, *, swallow: int = 0) -> Entered:
    """User code that spins, and swallows what is raised in it, so many times."""
    run = Entered()
    dog.begin(run)
    try:
        for _ in range(swallow):
            try:
                spin(seconds)
            except Evicted:
                continue
        spin(seconds)
    finally:
        dog.end()
    return run


def test_a_loop_without_end_is_evicted(dog: Watchdog, hung: list[str]) -> None:
    with pytest.raises(Evicted):
        watched(dog, BOUND_S)
    spin(0.4)  # nothing is raised in what comes later
    assert hung == []


def test_its_api_is_closed_before(dog: Watchdog) -> None:
    run = Entered()
    dog.begin(run)
    try:
        spin(BOUND_S)
    except Evicted:
        pass
    finally:
        dog.end()
    assert run.evicted >= 1


def test_what_waits_without_burning_is_left_alone(dog: Watchdog) -> None:
    run = Entered()
    dog.begin(run)
    threading.Event().wait(0.5)  # a machine that is busy elsewhere looks like this
    dog.end()
    assert run.evicted == 0


def test_quick_activations_are_left_alone_however_many(dog: Watchdog) -> None:
    assert [watched(dog, 0.02).evicted for _ in range(30)] == [0] * 30


def test_code_that_swallows_an_eviction_is_evicted_again(dog: Watchdog) -> None:
    with pytest.raises(Evicted):
        watched(dog, BOUND_S, swallow=2)


def test_code_that_swallows_everything_is_given_up_and_its_thread_ends(
    dog: Watchdog, hung: list[str]
) -> None:
    ended: list[type] = []

    def work() -> None:
        run = Entered()
        until = time.monotonic() + BOUND_S
        dog.begin(run)
        while True:
            try:
                while not hung and time.monotonic() < until:
                    spin(0.01)
                break
            except Evicted:
                continue
        try:
            dog.end()
        except BaseException as error:
            ended.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert hung == ["wf"]
    assert ended == [Abandoned]


def test_on_a_busy_machine_code_is_given_up_only_after_it_could_notice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine that gave a spinning thread a tenth of its time had it given up without ever evicting it."""
    now = {"wall": 1.0, "cpu": 0.0}
    monkeypatch.setattr(watchdog, "monotonic", lambda: now["wall"])
    monkeypatch.setattr(watchdog, "clock_gettime", lambda clock: now["cpu"])
    monkeypatch.setattr(watchdog, "pthread_getcpuclockid", lambda thread: 0)
    dog, run = Watchdog(lambda workflow_id: None), Entered()
    dog._run, dog._entries = run, 1

    def looks(wall: float, cpu: float) -> tuple[str, int]:
        now.update(wall=wall, cpu=cpu)
        return dog._evict_if_overdue(), run.evicted

    assert looks(1, 0.0) == ("", 0)
    assert looks(10, 0.05) == ("", 0)  # little CPU was used
    assert looks(20, 0.15) == ("", 1)
    assert looks(30, 0.16) == ("", 2)  # it has hardly run since
    assert looks(30.1, 0.30) == ("wf", 2)
    dog._entries = 2
    assert looks(40, 0.30) == ("", 2)
    assert looks(50, 0.50) == ("", 3)  # another one has its own time


@workflow.defn(name="Order")
class Spins:
    """Does not give way for very long."""

    @workflow.run
    async def run(self) -> None:
        for _ in range(10**12):
            pass


@workflow.defn(name="Fine")
class Fine:
    """Gives way."""

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def ok(self) -> bool:
        return True


def test_a_run_that_spins_is_blocked_and_others_go_on(tmp_path: Path, dog: Watchdog) -> None:
    bench = Bench(tmp_path, Spins, Fine, watch=dog)
    bench.send(start("a"), start("b", "b", workflow_type="Fine"))
    (blocked,) = [
        event for turn in bench.turns for event in turn.events if isinstance(event, e.WorkflowBlocked)
    ]
    assert "did not give way" in blocked.failure.message
    bench.send(query("ok", "b"))
    assert bench.value("query") is True
