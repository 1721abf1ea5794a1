"""The processes of a case on Kafka: started here, measured by their pids, ended by their pids."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka.admin import AdminClient

from orchestrator.client.client import Client
from orchestrator.log.connect import connect
from orchestrator.log.kafka import admin
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.topics import TOPICS
from orchestrator.protocol.tasks import CoordinatorBeat
from tests.kafka.broker import guard

PARTITIONS = 4
"""Of commands and history: as on the embedded log, and as the targets were measured with."""

SLOTS = 1_000
"""Of the worker: more than there are workflows in flight, so that none waits for a slot."""

READY_S = 60.0
"""For a process to say that it is ready: it takes about a second."""

LOOK_S = 0.005
"""Between two looks whether it has said so."""

# The unit of times in /proc.
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used up to now, in all its threads."""
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS_PER_S


class Meter:
    """CPU per role, from its making on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._begin = {role: cpu_s(pid) for role, pid in pids.items()}

    def per(self, count: int) -> dict[str, float]:
        """Microseconds of each role, and of all, per one of ``count``."""
        used = {
            f"{role}_us": (cpu_s(pid) - self._begin[role]) / count * 1e6 for role, pid in self._pids.items()
        }
        return {**used, "all_us": sum(used.values())}


class Role:
    """A module as a process that says when it is ready; it ends with this one, however this one ends."""

    def __init__(self, name: str, folder: Path, *command: str) -> None:
        self.name = name
        self._command = command
        self._said = folder / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> str:
        """Start it, or another one in its place, and wait until it is ready; returns what it says then."""
        before = len(self._ready_lines())
        with self._said.open("ab") as said:
            self._process = subprocess.Popen(  # noqa: ASYNC220 (it takes a millisecond)
                [sys.executable, "-m", *self._command],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "PYTHONHASHSEED": "0"},
                start_new_session=True,
            )
        self._guard = guard(self.pid)
        async with asyncio.timeout(READY_S):
            while len(lines := self._ready_lines()) == before:
                self.check()
                await asyncio.sleep(LOOK_S)
        return lines[-1]

    def check(self) -> None:
        """Raise RuntimeError if it has ended by itself."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"the {self.name} ended by itself:\n{self._said.read_text()[-2_000:]}")

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal that ends it, and wait for its end."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait()
        self._guard.communicate(b"ended\n")

    def _ready_lines(self) -> list[str]:
        return re.findall("^ready:.*$", self._said.read_text(), re.MULTILINE) if self._said.exists() else []


class Engine:
    """A namespace of its own on a broker, and the roles that serve it."""

    def __init__(self, bootstrap: str, broker_pid: int, folder: Path) -> None:
        self.settings = KafkaSettings(bootstrap, f"bench-{uuid.uuid4().hex[:8]}")
        self.folder = folder
        self._broker_pid = broker_pid
        self.roles: dict[str, Role] = {}

    @property
    def address(self) -> str:
        """Of the broker, for clients."""
        return f"kafka://{self.settings.bootstrap}"

    async def start(self, name: str, role: str, *arguments: str) -> str:
        """Start a role under a name, or again under the name that it had; returns what it says when ready."""
        where = ("--log", self.address, "--namespace", self.settings.namespace, "--log-level", "warning")
        self.roles[name] = Role(name, self.folder, "orchestrator", role, *arguments, *where)
        return await self.roles[name].start()

    async def coordinator(self, name: str = "coordinator", data: str = "") -> None:
        """Start a coordinator, whose folder is named like it unless ``data`` says otherwise."""
        folder = self.folder / (data or name)
        await self.start(name, "coordinator", "bench.workflows", "--data", str(folder))

    async def worker(self) -> None:
        """Start a worker."""
        await self.start("worker", "worker", "bench.workflows", "--slots", str(SLOTS))

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a role by a signal; returns when it has ended."""
        self.roles.pop(name).end(number)

    async def view(self) -> str:
        """Start a view; returns the address that it serves."""
        said = await self.start("view", "view", "--data", str(self.folder / "view"), "--port", "0")
        return said.split()[1]

    async def shared_by(self, count: int) -> None:
        """Wait until so many coordinators own all partitions, each at least one."""
        log = connect(self.address, namespace=self.settings.namespace)
        owned: dict[str, set[int]] = {}
        try:
            beats = await log.open_beats()
            async with asyncio.timeout(READY_S):
                while sorted(n for some in owned.values() for n in some) != list(range(PARTITIONS)) or (
                    len([some for some in owned.values() if some]) != count
                ):
                    for beat in [delivered.beat for delivered in await beats.next(READY_S)]:
                        if isinstance(beat, CoordinatorBeat):
                            owned[beat.coordinator] = set() if beat.stopped else set(beat.partitions)
        finally:
            await log.close()

    def meter(self) -> Meter:
        """Of all roles that run, the broker, and this process, which is the client."""
        pids = {name: role.pid for name, role in self.roles.items()}
        return Meter({**pids, "client": os.getpid(), "broker": self._broker_pid})

    async def client(self) -> Client:
        """A client in this process."""
        return await Client.connect(self.address, namespace=self.settings.namespace)

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True)
        await asyncio.to_thread(admin.create, self.settings, partitions=PARTITIONS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for role in self.roles.values():
                role.check()
        finally:
            for role in self.roles.values():
                role.end()
        self._drop_topics()

    def _drop_topics(self) -> None:
        """What a broker keeps costs it time, which would be counted to the cases that follow."""
        broker = AdminClient(self.settings.client())
        for dropping in broker.delete_topics([self.settings.topic(name) for name in TOPICS]).values():
            dropping.result(READY_S)


@asynccontextmanager
async def engine(bootstrap: str, broker_pid: int, folder: Path) -> AsyncIterator[tuple[Engine, Client]]:
    """One coordinator, one worker, and a client in this process."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(Engine(bootstrap, broker_pid, folder))
        await asyncio.gather(made.coordinator(), made.worker())
        client = await stack.enter_async_context(await made.client())
        yield made, client
