"""Processes of the demo, which can be killed; only those that it started itself, by their pids."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator import config
from orchestrator.client.client import Client
from orchestrator.errors import OrchestratorError, PortInUse, Unavailable

START_TIMEOUT_S = 120.0
"""How long a process may take to answer. It takes about a second; a busy machine takes its time."""

STOP_TIMEOUT_S = 15.0
"""How long a clean stop may take, before the process is killed."""

POLL_S = 0.05
LOG_LINES = 20
"""Shown of a process's log, if it does not start or ends by itself."""


class ProcessFailed(OrchestratorError):
    """A process of the demo did not start, or ended by itself."""


class Process:
    """``orchestrator …`` as a process of its own. What it says goes to a file."""

    def __init__(self, name: str, arguments: tuple[str, ...], log: Path, environ: Mapping[str, str]) -> None:
        """Nothing is started yet. ``environ`` is added to this process's environment."""
        self.name = name
        self._arguments = arguments
        self._log = log
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the process, which runs or has ended."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, or start another one in its place."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "orchestrator", *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._environ},
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its processes
            )

    def check(self) -> None:
        """Raise :class:`ProcessFailed` if it has ended by itself."""
        assert self._process is not None
        if self._process.returncode is not None:
            raise self.failed(f"ended with exit code {self._process.returncode}")

    async def kill(self) -> None:
        """SIGKILL: the process has no say in it. Returns when it is gone."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def wait(self) -> None:
        """Return when it has ended."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM: a clean stop, if it runs at all."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    def failed(self, what: str) -> ProcessFailed:
        """An error that says what happened, with the end of the process's log."""
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return ProcessFailed(
            "\n".join([f"the {self.name}, process {self.pid}, {what}; its log ends with:", *lines])
        )


async def client_of(process: Process, address: str) -> Client:
    """A client of a process that serves HTTP, as soon as it answers.

    Raises:
        ProcessFailed: it did not start; the message holds the end of its log.
    """
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                process.check()
                try:
                    return await Client.connect(address, identity="demo")
                except Unavailable:
                    await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise process.failed(f"did not answer within {START_TIMEOUT_S:g} s") from None


def free_port(port: int) -> int:
    """The port, if nobody has it; for 0 one that nobody has.

    Raises:
        PortInUse: something else listens there; to talk to it would prove nothing.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.HOST, port))
        except OSError as error:
            raise PortInUse(
                f"port {port} of {config.HOST} cannot be used: {error.strerror}; "
                "choose another with --port, or 0 for any that is free"
            ) from None
        free: int = probe.getsockname()[1]
        return free
