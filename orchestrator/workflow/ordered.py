"""``asyncio.wait``, ``as_completed`` and the tasks of a ``TaskGroup``, in an order that replay repeats.

The originals keep sets, whose order follows from addresses in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableSet
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class OrderedSet(MutableSet[T], Generic[T]):
    """A set that remembers the order in which its elements came."""

    __slots__ = ("_elements",)

    def __init__(self, elements: Iterable[T] = ()) -> None:
        self._elements = dict.fromkeys(elements)

    def __contains__(self, element: object) -> bool:
        return element in self._elements

    def __iter__(self) -> Iterator[T]:
        return iter(self._elements)

    def __len__(self) -> int:
        return len(self._elements)

    def __repr__(self) -> str:
        return f"OrderedSet({list(self._elements)!r})"

    def add(self, value: T) -> None:
        """Put the element at the end, unless it is there already."""
        self._elements[value] = None

    def discard(self, value: T) -> None:
        """Remove the element, if it is there."""
        self._elements.pop(value, None)


def in_order(awaitables: Iterable[Any]) -> list[Any]:
    """The awaitables, each once, in the given order; those of a set in the order of their creation."""
    if isinstance(awaitables, set | frozenset):
        return sorted(awaitables, key=lambda future: getattr(future, "number", 0))
    return list(dict.fromkeys(awaitables))


def make_wait(original: Callable[..., Any]) -> Callable[..., Any]:
    """``asyncio.wait`` that answers ordered sets."""

    async def wait(
        fs: Iterable[Any],
        *,
        timeout: float | None = None,  # noqa: ASYNC109  # the original's signature
        return_when: str = asyncio.ALL_COMPLETED,
    ) -> tuple[OrderedSet[Any], OrderedSet[Any]]:
        futures = in_order(fs)
        done, _ = await original(futures, timeout=timeout, return_when=return_when)
        return OrderedSet(f for f in futures if f in done), OrderedSet(f for f in futures if f not in done)

    return wait


class as_completed:
    """The awaitables as they complete, in the place of the function of this name.

    Iterate with ``for`` (coroutines of results) or with ``async for`` (futures).
    """

    def __init__(self, fs: Iterable[Awaitable[Any]], *, timeout: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        futures = dict.fromkeys(asyncio.ensure_future(awaitable, loop=loop) for awaitable in in_order(fs))
        self._left = len(futures)
        self._completed: asyncio.Queue[asyncio.Future[Any] | None] = asyncio.Queue()
        self._timer = None if timeout is None else loop.call_later(timeout, self._expire)
        for future in futures:
            future.add_done_callback(self._complete)
        self._waiting = len(futures)

    def __iter__(self) -> as_completed:
        return self

    def __next__(self) -> Any:
        if self._left == 0:
            raise StopIteration
        self._left -= 1
        return self._next_result()

    def __aiter__(self) -> as_completed:
        return self

    async def __anext__(self) -> asyncio.Future[Any]:
        if self._left == 0:
            raise StopAsyncIteration
        self._left -= 1
        return await self._next_future()

    async def _next_future(self) -> asyncio.Future[Any]:
        future = await self._completed.get()
        if future is None:
            raise TimeoutError
        return future

    async def _next_result(self) -> Any:
        return (await self._next_future()).result()

    def _complete(self, future: asyncio.Future[Any]) -> None:
        if self._waiting:
            self._waiting -= 1
            self._completed.put_nowait(future)
            if not self._waiting and self._timer is not None:
                self._timer.cancel()

    def _expire(self) -> None:
        for _ in range(self._waiting):
            self._completed.put_nowait(None)
        self._waiting = 0
