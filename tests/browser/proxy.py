"""A reverse proxy as people put before the page: it serves it below a path, and passes it on without that."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from types import TracebackType
from typing import Self

from orchestrator import config

REFUSAL = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class SubPathProxy:
    """Serves another server below a path. What is asked for beside it gets 404, and is in ``strays``.

    It changes the first line and the host of a request, as nginx does with ``proxy_pass`` alone, and has one
    connection for each.
    """

    def __init__(self, port: int, behind: int, path: str) -> None:
        """``port`` is its own; ``behind`` that of the server."""
        self.strays: list[str] = []
        self._port, self._behind, self._path = port, behind, path
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, config.HOST, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the browser asked for nothing after all, or has left
        finally:
            await _close(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, rest = head.split(" ", 2)
        if path.startswith(f"{self._path}/"):
            rest = re.sub(r"(?im)^host: .*$", f"Host: {config.HOST}:{self._behind}\r", rest)
            rest = re.sub(r"(?im)^connection: .*$", "Connection: close\r", rest)
            await self._pass_on(f"{method} {path.removeprefix(self._path)} {rest}", reader, writer)
        else:
            self.strays.append(path)
            writer.write(REFUSAL)

    async def _pass_on(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer, asked = await asyncio.open_connection(config.HOST, self._behind)
        asked.write(head.encode("latin-1"))
        body = asyncio.create_task(_pipe(reader, asked))
        try:
            await _pipe(answer, writer)
        finally:
            body.cancel()
            await asyncio.gather(body, return_exceptions=True)
            await _close(asked)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(65_536):
        writer.write(part)
        await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
