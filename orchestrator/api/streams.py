"""The server's end of long polls: streams that outlive a request.

A stream is opened by name and asked for batches; each request acknowledges the batch before. An answer
that was lost on its way is given again, so no message is lost between the log and its reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any, NamedTuple, Protocol

from orchestrator.errors import LogError
from orchestrator.log.aio import AioLog
from orchestrator.log.wire import Opened

STREAM_IDLE_S = 60.0
"""A stream that nobody asked for so long is closed: its reader has gone without a word."""


class StreamGone(LogError):
    """There is no such stream here (any more)."""


class Kind(Enum):
    """Who reads what."""

    WORKER = "workers"
    CLIENT = "clients"
    OBSERVER = "observers"


class _Stream(Protocol):
    async def next(self, timeout_s: float) -> list[Any]: ...
    async def close(self) -> None: ...


class Took(NamedTuple):
    """A batch: its number, the offset that the stream has reached, and the messages."""

    number: int
    offset: int
    messages: list[Any]


class _Held:
    """One open stream and the last batch it gave."""

    def __init__(self, stream: _Stream) -> None:
        self.stream = stream
        self.asked_at = _now()
        self.waiting = 0
        self._last = Took(0, self._offset, [])
        self._lock = asyncio.Lock()

    @property
    def _offset(self) -> int:
        return getattr(self.stream, "offset", 0)

    async def next(self, after: int, wait_s: float) -> Took:
        """The batch after ``after``; the last one again if that is what it follows."""
        self.waiting += 1
        try:
            async with self._lock:
                if after == self._last.number:
                    messages = await self.stream.next(wait_s)
                    self._last = Took(after + 1 if messages else after, self._offset, messages)
                elif after != self._last.number - 1:
                    raise StreamGone(f"the stream stands at batch {self._last.number}, not at {after}")
                return self._last
        finally:
            self.waiting -= 1
            self.asked_at = _now()


class Streams:
    """All streams that are open over HTTP, by kind and name. Use it from one event loop."""

    def __init__(self, log: AioLog) -> None:
        self._open: dict[Kind, Callable[[str], Awaitable[_Stream]]] = {
            Kind.WORKER: log.open_inbox,
            Kind.CLIENT: log.open_replies,
            Kind.OBSERVER: lambda name: log.open_beats(),
        }
        self._held: dict[tuple[Kind, str], _Held] = {}

    async def open(self, kind: Kind, name: str) -> Opened:
        """Open a stream at the end of its partition; one of that name is replaced."""
        await self._sweep()
        await self.close(kind, name)
        stream = await self._open[kind](name)
        self._held[kind, name] = _Held(stream)
        return Opened(partition=getattr(stream, "partition", 0), offset=getattr(stream, "offset", 0))

    def check(self, kind: Kind, name: str) -> None:
        """Raise ``StreamGone`` if there is no such stream."""
        self._find(kind, name)

    async def next(self, kind: Kind, name: str, after: int, wait_s: float) -> Took:
        """The batch after ``after``, empty after ``wait_s``.

        Raises:
            StreamGone: there is no such stream, or it does not stand there.
            Unavailable: the log was closed.
        """
        return await self._find(kind, name).next(after, wait_s)

    async def close(self, kind: Kind, name: str) -> None:
        """Close a stream, if it is open."""
        held = self._held.pop((kind, name), None)
        if held is not None:
            await held.stream.close()

    async def close_all(self) -> None:
        """Close all streams; requests that wait on one end at once."""
        for kind, name in list(self._held):
            await self.close(kind, name)

    async def _sweep(self) -> None:
        gone_before = _now() - STREAM_IDLE_S
        for (kind, name), held in list(self._held.items()):
            if not held.waiting and held.asked_at < gone_before:
                await self.close(kind, name)

    def _find(self, kind: Kind, name: str) -> _Held:
        held = self._held.get((kind, name))
        if held is None:
            raise StreamGone(
                f"{kind.value} has no {name!r} here: the engine was restarted, or nobody asked for "
                f"{STREAM_IDLE_S:.0f} s; open it again with PUT"
            )
        return held


def _now() -> float:
    return asyncio.get_running_loop().time()
