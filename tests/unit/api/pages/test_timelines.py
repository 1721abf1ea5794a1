from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from orchestrator.api.pages import timelines as module
from orchestrator.api.pages.timelines import Timelines
from orchestrator.errors import Unavailable, WorkflowNotFound
from orchestrator.protocol import events as e
from orchestrator.protocol.views import History
from tests.unit.view.shelf import Shelf

from .runs import scheduled
from .test_journal import Counting


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.close()


def signals(count: int) -> list[tuple[e.Event, ...]]:
    return [(e.WorkflowSignaled(signal_name=f"s{number}"),) for number in range(count)]


async def test_a_run_is_read_once_and_then_what_is_new(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READ_TURNS", 4)
    run_id = shelf.run("w", *signals(10))
    reader = Counting(shelf.reader)
    timelines = Timelines(reader)
    look = await timelines.look("w", run_id, 5_000)
    assert (look.timeline.turn, look.whole, reader.turns_read) == (11, True, 11)
    again = await timelines.look("w", run_id, 9_000)
    assert (again.timeline, reader.turns_read) == (look.timeline, 11)
    assert again.picture.end_ms == 9_000


async def test_those_who_ask_together_read_once(shelf: Shelf) -> None:
    run_id = shelf.run("w", *signals(10))
    reader = Counting(shelf.reader)
    timelines = Timelines(reader)
    looks = await asyncio.gather(*(timelines.look("w", run_id, 5_000) for _ in range(5)))
    assert reader.turns_read == 11
    assert {id(look.timeline) for look in looks} == {id(looks[0].timeline)}


class Halting(Counting):
    """Does not come back from its first read."""

    halt = True

    async def history(self, *args: Any, **bounds: Any) -> History:
        found = await super().history(*args, **bounds)
        if self.halt:
            self.halt = False
            await asyncio.Event().wait()
        return found


async def test_who_leaves_in_the_middle_leaves_no_half_timeline(shelf: Shelf) -> None:
    run_id = shelf.run("w", *signals(10))
    reader = Halting(shelf.reader)
    timelines = Timelines(reader)
    first = asyncio.create_task(timelines.look("w", run_id, 5_000))
    second = asyncio.create_task(timelines.look("w", run_id, 5_000))
    async with asyncio.timeout(10):
        while reader.halt:  # noqa: ASYNC110 (a thread reads)
            await asyncio.sleep(0.01)
        first.cancel()
        look = await second
    assert look.timeline.turn == 11
    assert (await timelines.look("w", run_id, 5_000)).timeline is look.timeline


async def test_a_look_says_how_far_it_went_though_others_go_on(shelf: Shelf) -> None:
    run_id = shelf.run("w", *signals(3))
    timelines = Timelines(Counting(shelf.reader))
    look = await timelines.look("w", run_id, 5_000)
    (last,) = shelf.reader.history("w", run_id, after_turn=3).turns
    look.timeline.add(replace(last, turn=5, first_event_id=5))  # as another look does
    assert (look.turn, look.timeline.turn) == (4, 5)


async def test_what_was_not_looked_at_for_longest_is_let_go(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BARS_KEPT", 5)
    runs = [shelf.run(f"w{n}", tuple(scheduled(number) for number in range(1, 4))) for n in range(3)]
    timelines = Timelines(Counting(shelf.reader))
    looks = [await timelines.look(f"w{n}", run_id, 5_000) for n, run_id in enumerate(runs)]
    assert (await timelines.look("w2", runs[2], 5_000)).timeline is looks[2].timeline
    assert (await timelines.look("w0", runs[0], 5_000)).timeline is not looks[0].timeline


async def test_a_history_beyond_all_bounds_is_drawn_in_part(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READ_TURNS", 4)
    monkeypatch.setattr(module, "MAX_TURNS_DRAWN", 8)
    run_id = shelf.run("w", *signals(20))
    look = await Timelines(Counting(shelf.reader)).look("w", run_id, 5_000)
    assert (look.timeline.turn, look.whole) == (8, False)


async def test_errors_are_told_and_not_kept(shelf: Shelf) -> None:
    run_id = shelf.run("w")
    timelines = Timelines(Counting(shelf.reader))
    with pytest.raises(WorkflowNotFound):
        await timelines.look("w", "f" * 32, 0)
    kept = list(shelf.stores)
    shelf.stores[:] = [None] * len(kept)
    with pytest.raises(Unavailable):
        await timelines.look("w", run_id, 0)
    shelf.stores[:] = kept
    assert (await timelines.look("w", run_id, 0)).timeline.turn == 1
