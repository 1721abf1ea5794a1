"""``orchestrator dev`` as a process of its own, which can be killed."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

from orchestrator import config
from orchestrator.client.client import Client
from orchestrator.contrib.world import FOLDER_VARIABLE
from orchestrator.errors import OrchestratorError, PortInUse, Unavailable

MODULES = ("orchestrator.demo.onboarding", "orchestrator.demo.orders")
"""What the engine is started with. The activities are those that these modules import."""

START_TIMEOUT_S = 60.0
"""How long the process may take to answer. It takes about a second; a busy machine takes its time."""

STOP_TIMEOUT_S = 15.0
"""How long a clean stop may take, before the process is killed."""

POLL_S = 0.05
LOG_LINES = 20
"""Shown of the engine's log, if it does not start or ends by itself."""


class EngineFailed(OrchestratorError):
    """The engine's process did not start, or ended by itself."""


class EngineProcess:
    """An engine with its data in ``data/``; only this process is ever signalled, by its pid."""

    def __init__(self, data: Path, port: int) -> None:
        """Nothing is started yet.

        Raises:
            PortInUse: something else listens there; to talk to it would prove nothing.
        """
        self.data = data
        self.world = data / "world"
        self.log = data / "engine.log"
        self.port = _free_port(port)
        self.address = f"http://{config.HOST}:{self.port}"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Of the running process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> Client:
        """Start the process and wait until it answers; returns a client of it.

        Raises:
            EngineFailed: it did not start; the message holds the end of its log.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        options = ("--data", str(self.data), "--port", str(self.port))
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "orchestrator", "dev", *MODULES, *options),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, FOLDER_VARIABLE: str(self.world)},
                start_new_session=True,  # Ctrl-C is for the demo, which then stops the engine
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                return await self._connect()
        except TimeoutError:
            raise self._failed(f"did not answer within {START_TIMEOUT_S:g} s") from None

    async def _connect(self) -> Client:
        while True:
            self.check()
            try:
                return await Client.connect(self.address, identity="demo")
            except Unavailable:
                await asyncio.sleep(POLL_S)

    def check(self) -> None:
        """Raise :class:`EngineFailed` if the process has ended by itself."""
        assert self._process is not None
        if self._process.returncode is not None:
            raise self._failed(f"ended with exit code {self._process.returncode}")

    async def kill(self) -> None:
        """SIGKILL: the process has no say in it. Returns when it is gone."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def wait(self) -> None:
        """Return when the process has ended."""
        assert self._process is not None
        await self._process.wait()

    async def stop(self) -> None:
        """SIGTERM: a clean stop, if the process runs at all."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    def _failed(self, what: str) -> EngineFailed:
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return EngineFailed(
            "\n".join([f"the engine's process {self.pid} {what}; its log ends with:", *lines])
        )


def _free_port(port: int) -> int:
    """The port, if nobody has it; for 0 one that nobody has."""
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
