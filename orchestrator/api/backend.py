"""What the HTTP API stands on: the three doors of an engine, whichever log it runs on."""

from __future__ import annotations

from orchestrator.api.reads import ThreadedReader
from orchestrator.api.streams import Streams
from orchestrator.api.watch import Watch
from orchestrator.client.client import Client
from orchestrator.client.reads import AsyncReader
from orchestrator.log.aio import AioLog
from orchestrator.view.reader import Overview


class Backend:
    """A log for workers and clients elsewhere, a reader, and a client of its own. Of one event loop.

    Args:
        log: the log's asyncio side; it stays the caller's to close.
        reader: the read side, in this process.
        overview: a view's account of itself, if a view serves this.
    """

    def __init__(self, log: AioLog, reader: ThreadedReader, overview: Overview | None = None) -> None:
        self.log = log
        self.reader = reader
        self.overview = overview
        self.client = Client(log, reader=reader, identity="http")
        self.streams = Streams(log)
        self.watch = Watch(reader.positions)

    def reads(self, bookmark: str) -> AsyncReader:
        """The reader, behind a bookmark; "" is none."""
        return self.reader.after(bookmark) if bookmark else self.reader

    async def close(self) -> None:
        """End all requests that wait for something."""
        await self.watch.close()
        await self.streams.close_all()
        await self.client.close()
