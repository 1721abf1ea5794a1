"""Serves the HTTP API inside of an event loop that others share."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from fastapi import FastAPI

from orchestrator.api.backend import Backend
from orchestrator.errors import ConfigError, PortInUse

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that none sends on one that is just being closed."""

LAST_ANSWERS_S = 3
"""How long requests under way may still take when the server stops."""

BACKLOG = 1_024


def bind(host: str, port: int) -> socket.socket:
    """Take a port; 0 takes a free one.

    Raises:
        PortInUse: another process listens there.
        ConfigError: the host or port cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol left open, asyncio does not switch Nagle's algorithm off: 40 ms per answer.
    taken = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
        taken.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        taken.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use by another process; stop it, or choose another --port"
            ) from error
        raise ConfigError(f"cannot listen on {host}:{port}: {error}") from error
    return taken


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are for the process as a whole, not for its HTTP server."""
        yield


@asynccontextmanager
async def serving(app: FastAPI, backend: Backend, taken: socket.socket) -> AsyncIterator[asyncio.Task[None]]:
    """Serve the application on a bound socket; yields the task that serves, which ends with the block.

    At the end, requests that wait for something are answered at once.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=LAST_ANSWERS_S,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[taken]), name="http")
    try:
        yield task
    finally:
        server.should_exit = True
        await backend.close()
        await asyncio.gather(task, return_exceptions=True)
