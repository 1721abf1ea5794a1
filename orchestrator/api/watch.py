"""Who looks at a page is told when what it shows may have changed.

One task looks at how far the partitions of history are shown, numbers in memory, while anybody watches. It
asks nothing of the log, and whoever decides does not know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from orchestrator.errors import Unavailable

LOOK_S = 0.1
"""Between two looks: what happened is told before people notice that it was not."""

MAX_WATCHERS = 250
"""Pages that are told at a time. Each holds a connection, and asks the stores when something happened."""


class Watcher:
    """One page's eye on the partitions of history. Of one task."""

    def __init__(self, partition: int | None, positions: Sequence[int]) -> None:
        self._partition = partition
        self._seen = self._of(positions)
        self._moved = asyncio.Event()
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether there will be no more news."""
        return self._closed.is_set()

    async def moved(self, timeout_s: float) -> bool:
        """Wait until something happened since the last call, or there will be no more news.

        False: nothing did for ``timeout_s`` seconds.
        """
        found = await _wait(self._moved, timeout_s)
        if not self.closed:
            self._moved.clear()
        return found

    async def rest(self, for_s: float) -> None:
        """Wait for so long, or until there will be no more news."""
        await _wait(self._closed, for_s)

    def look(self, positions: Sequence[int]) -> None:
        """How far the partitions are shown now."""
        found = self._of(positions)
        if found != self._seen:
            self._seen = found
            self._moved.set()

    def close(self) -> None:
        """There will be no more news."""
        self._closed.set()
        self._moved.set()

    def _of(self, positions: Sequence[int]) -> tuple[int, ...]:
        first = self._partition
        return tuple(positions if first is None else positions[first : first + 1])


async def _wait(event: asyncio.Event, timeout_s: float) -> bool:
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False


class Watch:
    """Wakes watchers whose partition has moved. Of one event loop.

    Args:
        positions: how far each partition of history is shown, by number; must be cheap.
    """

    def __init__(self, positions: Callable[[], Sequence[int]]) -> None:
        self._positions = positions
        self._watchers: set[Watcher] = set()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def begin(self, partition: int | None = None) -> Watcher:
        """Watch one partition, or all of them, from now on until :meth:`end`.

        Raises:
            Unavailable: too many do, or the process ends.
        """
        if self._closed:
            raise Unavailable("there are no updates: this process ends")
        if len(self._watchers) >= MAX_WATCHERS:
            raise Unavailable(
                f"there are no updates: {len(self._watchers)} pages get some, which is the limit; "
                "close other pages, or load this one again now and then"
            )
        watcher = Watcher(partition, self._positions())
        self._watchers.add(watcher)
        if self._task is None:
            self._task = asyncio.create_task(self._look(), name="watch")
        return watcher

    @property
    def watching(self) -> int:
        """How many watch now."""
        return len(self._watchers)

    def end(self, watcher: Watcher) -> None:
        """Somebody watches no more."""
        self._watchers.discard(watcher)

    async def close(self) -> None:
        """Tell all watchers that there will be no more news."""
        self._closed = True
        for watcher in self._watchers:
            watcher.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _look(self) -> None:
        while self._watchers:
            await asyncio.sleep(LOOK_S)
            positions = self._positions()
            for watcher in self._watchers:
                watcher.look(positions)
        self._task = None
