"""The demo on Kafka: coordinators, workers and a view as processes, and one of each is killed."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from orchestrator import config
from orchestrator.client.client import Client
from orchestrator.contrib.world import FOLDER_VARIABLE
from orchestrator.demo.dead_log import histories_of
from orchestrator.demo.processes import Process, client_of, free_port
from orchestrator.demo.stage import MODULES
from orchestrator.log.kafka import admin
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.settings import load
from orchestrator.protocol.views import History

COPIES = 2
"""Of the coordinator and of the worker: one is killed, the other goes on."""

PARTITIONS = 4
"""Of the demo's own namespace: enough for two coordinators to share."""


class KafkaStage:
    """Two coordinators, two workers and a view, in a namespace of their own unless one is named.

    After the blow only the view is started again: what the dead coordinator and the dead worker had in
    hand, the others take over.
    """

    def __init__(
        self, folder: Path, port: int, address: str, namespace: str, config_file: Path | None
    ) -> None:
        """Nothing is started or made yet; raises ``PortInUse`` and ``ConfigError``."""
        self.world = folder / "world"
        self._own_namespace = not namespace
        namespace = namespace or f"demo-{uuid.uuid4().hex[:8]}"
        self._settings = load(address, namespace=namespace, config_file=config_file, environ=os.environ)
        port = free_port(port)
        self.address = f"http://{config.HOST}:{port}"
        where = ["--log", address, "--namespace", namespace]
        where += ["--kafka-config", str(config_file.absolute())] if config_file is not None else []

        def process(name: str, *arguments: str) -> Process:
            environ = {FOLDER_VARIABLE: str(self.world)}
            log = folder / f"{name.replace(' ', '-')}.log"
            return Process(name, (*arguments, *where), log, environ)

        self._coordinators = [
            process(f"coordinator {n}", "coordinator", *MODULES, "--data", str(folder / f"coordinator-{n}"))
            for n in range(1, COPIES + 1)
        ]
        self._workers = [process(f"worker {n}", "worker", *MODULES) for n in range(1, COPIES + 1)]
        self._view = process("view", "view", "--data", str(folder / "view"), "--port", str(port))
        self._alive: list[Process] = []

    async def start(self) -> tuple[Client, str]:
        """Make the topics and start all processes; after the blow, the view alone."""
        begun = bool(self._alive)
        if not begun:
            admin.create(self._settings, partitions=PARTITIONS if self._own_namespace else None)
        for process in [self._view] if begun else [*self._coordinators, *self._workers, self._view]:
            await process.start()
            self._alive.append(process)
        client = await client_of(self._view, self.address)
        pids = ", ".join(f"{process.name}: {process.pid}" for process in self._alive)
        return client, f"namespace {self._settings.namespace} on {self._settings.bootstrap}; {pids}"

    async def strike(self) -> str:
        """Kill a coordinator, a worker and the view."""
        struck = [self._coordinators[0], self._workers[0], self._view]
        for process in struck:
            await process.kill()
            self._alive.remove(process)
        return "; ".join(f"kill -9 {process.pid} ({process.name})" for process in struck)

    def histories(self) -> dict[str, History]:
        """What the topic of histories says."""
        log = KafkaLog(self._settings, member="demo")
        try:
            return histories_of(log)
        finally:
            log.close()

    def check(self) -> None:
        """Raise ``ProcessFailed`` if a process has ended by itself."""
        for process in self._alive:
            process.check()

    async def wait(self) -> None:
        """Return when the view has ended."""
        await self._view.wait()

    async def stop(self) -> None:
        """SIGTERM to all that run; a namespace of the demo's own is removed."""
        for process in self._alive:
            await process.stop()
        if self._own_namespace:
            admin.delete(self._settings)
