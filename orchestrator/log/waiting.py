"""Who waits for a log, on an event loop: senders for acknowledgements, readers for messages.

What the adapters of ``aio`` that speak to a log themselves (``embedded_aio``, ``kafka``) have in common.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from orchestrator.errors import OrchestratorError, Unavailable
from orchestrator.log.typed import Feed, Stream

T = TypeVar("T")

Token = asyncio.Future[int] | Callable[[Exception], None]
"""Who is told what became of an append: who waits for its offset, or who only hears of a failure."""


class Acknowledgements:
    """The appends that somebody waits for, each with a deadline. For one event loop.

    Futures and one timer for all of them: a task or a timer for each append would cost more than the append.

    Args:
        late: says of an append that it was not acknowledged in time.
    """

    def __init__(self, late: Callable[[], str]) -> None:
        self._late = late
        self._deadlines: dict[asyncio.Future[int], float] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def expect(self, timeout_s: float) -> asyncio.Future[int]:
        """A future of the offset; ``Unavailable`` after ``timeout_s``, which is the same for all."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[int] = loop.create_future()
        deadline = loop.time() + timeout_s
        self._deadlines[future] = deadline
        if self._alarm is None:
            self._alarm = loop.call_at(deadline, self._ring)
        return future

    def settle(self, token: Token, offset: int) -> None:
        """An append is durable at an offset."""
        if isinstance(token, asyncio.Future):
            self._deadlines.pop(token, None)
            if not token.done():
                token.set_result(offset)

    def fail(self, token: Token, error: Exception) -> None:
        """An append failed, or its outcome will not be known."""
        if not isinstance(token, asyncio.Future):
            token(error)
            return
        self._deadlines.pop(token, None)
        if not token.done():
            token.set_exception(error)

    def fail_all(self, words: str) -> None:
        """Nothing will be acknowledged any more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        for future in list(self._deadlines):
            self.fail(future, Unavailable(words))

    def _ring(self) -> None:
        """Give up what is late. Appends stand in the order of their deadlines."""
        self._alarm = None
        loop = asyncio.get_running_loop()
        for future, deadline in list(self._deadlines.items()):
            if deadline > loop.time():
                self._alarm = loop.call_at(deadline, self._ring)
                return
            self.fail(future, Unavailable(self._late()))


class WaitingStream(Stream[T]):
    """A stream that can be waited for. One task at a time may wait."""

    def __init__(self, feed: Feed[T], name: str, on_closed: Callable[[WaitingStream[T]], None]) -> None:
        super().__init__(feed, name)
        self._on_closed = on_closed
        self._news = asyncio.Event()
        self._ended: OrchestratorError | None = None

    def looked(self, offset: int) -> None:
        """A batch was looked at: wake the reader if there is something for it."""
        super().looked(offset)
        if self._messages:
            self._news.set()

    async def next(self, timeout_s: float) -> list[T]:
        """The next messages; empty after ``timeout_s``.

        Raises:
            Unavailable: the stream or the log was closed.
            LogError: records were gone before they were read; open another stream.
        """
        if not self._news.is_set():
            try:
                async with asyncio.timeout(timeout_s):
                    await self._news.wait()
            except TimeoutError:
                pass
        if self._ended is not None:
            raise self._ended
        self._news.clear()
        return self.take()

    def end(self, error: OrchestratorError | None = None) -> None:
        """Wake the reader for good; why it ended first stays."""
        self._ended = self._ended or error or Unavailable("this stream is closed; open another one")
        self._news.set()

    async def close(self) -> None:
        """Read no more."""
        self.end()
        self.detach()
        self._on_closed(self)
