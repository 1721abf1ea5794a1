"""Where the demo plays: which processes there are, which of them are killed, and what their log says."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from orchestrator import config
from orchestrator.client.client import Client
from orchestrator.contrib.world import FOLDER_VARIABLE
from orchestrator.demo.dead_log import read_dead_log
from orchestrator.demo.processes import Process, client_of, free_port
from orchestrator.protocol.views import History

MODULES = ("orchestrator.demo.onboarding", "orchestrator.demo.orders")
"""What the processes are started with. The activities are those that these modules import."""


class Stage(Protocol):
    """One installation that runs the demo's workflows.

    Attributes:
        address: where HTTP is served.
        world: the folder of the outside world.
    """

    address: str
    world: Path

    async def start(self) -> tuple[Client, str]:
        """Start what does not run and wait until it answers; a client, and in words what runs now."""

    async def strike(self) -> str:
        """Kill with SIGKILL; returns in words what was killed."""

    def histories(self) -> dict[str, History]:
        """What the log itself says now, whatever any process believes: by workflow id, its latest run."""

    def check(self) -> None:
        """Raise ``ProcessFailed`` if something has ended by itself."""

    async def wait(self) -> None:
        """Return when something has ended."""

    async def stop(self) -> None:
        """Stop everything."""


class EmbeddedStage:
    """``orchestrator dev``: all roles in one process, on the embedded log in ``data``."""

    def __init__(self, data: Path, port: int) -> None:
        """Nothing is started yet; raises ``PortInUse``."""
        self.world = data / "world"
        self._data = data
        port = free_port(port)
        self.address = f"http://{config.HOST}:{port}"
        self._engine = Process(
            "engine",
            ("dev", *MODULES, "--data", str(data), "--port", str(port)),
            data / "engine.log",
            {FOLDER_VARIABLE: str(self.world)},
        )

    async def start(self) -> tuple[Client, str]:
        """Start the process, or another one on the same folder."""
        await self._engine.start()
        client = await client_of(self._engine, self.address)
        return client, f"the engine runs as process {self._engine.pid}, with its data in {self._data}"

    async def strike(self) -> str:
        """Kill the only process there is."""
        await self._engine.kill()
        return f"kill -9 {self._engine.pid}"

    def histories(self) -> dict[str, History]:
        """What is in the folder; the engine must be dead."""
        return read_dead_log(self._data)

    def check(self) -> None:
        """Raise ``ProcessFailed`` if the engine has ended by itself."""
        self._engine.check()

    async def wait(self) -> None:
        """Return when the engine has ended."""
        await self._engine.wait()

    async def stop(self) -> None:
        """SIGTERM, if it runs."""
        await self._engine.stop()
