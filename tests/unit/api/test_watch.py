from __future__ import annotations

import asyncio

import pytest

from orchestrator.api import watch as module
from orchestrator.api.watch import Watch
from orchestrator.errors import Unavailable

SOON_S = 5.0
"""Long enough for whatever is to happen."""


async def test_who_watches_a_partition_hears_of_it_alone() -> None:
    positions = [10, 20]
    watch = Watch(lambda: positions)
    first, second, all_ = watch.begin(0), watch.begin(1), watch.begin()
    positions[1] = 21
    assert await second.moved(SOON_S)
    assert await all_.moved(SOON_S)
    assert not await first.moved(0.3)
    assert not await second.moved(0.3)  # it was told
    positions[0] = 11
    assert await first.moved(SOON_S)
    await watch.close()


async def test_what_happens_while_nobody_listens_is_told_once() -> None:
    positions = [0]
    watch = Watch(lambda: positions)
    watcher = watch.begin(0)
    for _ in range(3):
        positions[0] += 1
        await asyncio.sleep(module.LOOK_S * 1.5)
    assert await watcher.moved(SOON_S)
    assert not await watcher.moved(0.2)
    await watch.close()


async def test_a_partition_that_is_shown_again_is_news() -> None:
    positions = [-1]
    watch = Watch(lambda: tuple(positions))
    watcher = watch.begin(0)
    positions[:] = [7]
    assert await watcher.moved(SOON_S)
    await watch.close()


async def test_a_log_that_has_not_answered_has_no_partitions_and_no_news() -> None:
    watch = Watch(tuple)
    watcher = watch.begin(3)
    assert not await watcher.moved(0.2)
    await watch.close()


async def test_the_end_is_told_at_once_and_nobody_begins_after_it() -> None:
    watch = Watch(lambda: [0])
    watcher = watch.begin()
    waits, rests = asyncio.create_task(watcher.moved(60)), asyncio.create_task(watcher.rest(60))
    await asyncio.sleep(0)
    await watch.close()
    async with asyncio.timeout(SOON_S):
        assert await waits
        await rests
    assert watcher.closed
    assert await watcher.moved(60)
    with pytest.raises(Unavailable, match="this process ends"):
        watch.begin()


async def test_there_is_room_for_so_many_and_for_others_when_some_have_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_WATCHERS", 2)
    watch = Watch(lambda: [0])
    first, _ = watch.begin(), watch.begin()
    with pytest.raises(Unavailable, match="2 pages get some, which is the limit"):
        watch.begin()
    watch.end(first)
    watch.begin()
    await watch.close()


async def test_nobody_looks_while_nobody_watches() -> None:
    looks = 0

    def positions() -> list[int]:
        nonlocal looks
        looks += 1
        return [0]

    watch = Watch(positions)
    watcher = watch.begin()
    watch.end(watcher)
    async with asyncio.timeout(SOON_S):
        while any(task.get_name() == "watch" for task in asyncio.all_tasks()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert looks <= 2
    again = watch.begin()
    assert not await again.moved(0.25)
    assert looks >= 3
    await watch.close()
