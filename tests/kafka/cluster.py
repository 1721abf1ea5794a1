"""Coordinators and workers as processes on a broker: killed, stopped and continued, each by its pid."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from orchestrator.client.client import Client
from orchestrator.demo.processes import Process
from orchestrator.log.aio import BeatStream
from orchestrator.log.connect import connect
from orchestrator.log.topics import COMMANDS, HISTORY
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import CoordinatorBeat
from tests.e2e.autopsy import Autopsy
from tests.e2e.steady import Work
from tests.kafka.broker import guard
from tests.kafka.flows import FOLDER
from tests.kafka.raw import RawLog
from tests.kafka.stops import GROUP, STOP_AT

PARTITIONS = 4
"""Enough for three coordinators to share."""

PATIENCE_S = 60.0
"""For what takes some seconds on a machine that does much else."""

LOOK_S = 0.05

ROOT = Path(__file__).parent.parent.parent


async def until(met: Callable[[], bool | Awaitable[bool]], what: str, patience_s: float = PATIENCE_S) -> None:
    """Wait for a state."""
    try:
        async with asyncio.timeout(patience_s):
            while not (found if isinstance(found := met(), bool) else await found):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {patience_s:g} s") from None


class Member(Process):
    """A coordinator or a worker."""

    def __init__(self, name: str, folder: Path, *arguments: str, environ: dict[str, str]) -> None:
        self.log = folder / f"{name}.log"
        self._order = folder / f"{name}.stop"
        self.stopped = False
        self._guard: subprocess.Popen[bytes] | None = None
        super().__init__(name, arguments, self.log, {**environ, STOP_AT: str(self._order)})

    async def ready(self) -> None:
        """Wait until it says that it is."""
        before = self.log.read_text().count("ready:") if self.log.exists() else 0
        await self.start()
        self.stopped = False
        self._guard = guard(self.pid)
        await until(self._said_ready(before), f"{self.name} is ready")

    def _said_ready(self, before: int) -> Callable[[], bool]:
        def said() -> bool:
            self.check()
            return self.log.read_text().count("ready:") > before

        return said

    async def over(self, *, kill: bool) -> None:
        """End it by SIGKILL, or in order by SIGTERM; returns when it has ended."""
        with suppress(ProcessLookupError):  # it has ended by itself
            await (self.kill() if kill else self.stop())
        assert self._guard is not None
        self._guard.communicate(b"ended\n")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    async def stop_at(self, point: str) -> None:
        """Let it stop (SIGSTOP) when it comes to a point of its step; returns when it stands."""
        draft = self._order.with_suffix(".draft")
        draft.write_text(point)
        draft.rename(self._order)
        await until(lambda: not self._order.exists(), f"{self.name} comes to {point!r}")
        await until(self._stands, f"{self.name} stands")
        self.stopped = True

    def _stands(self) -> bool:
        stat = Path(f"/proc/{self.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def pause(self) -> None:
        """Stop it (SIGSTOP) wherever it is."""
        self.signal(signal.SIGSTOP)
        self.stopped = True

    def go_on(self) -> None:
        """End the stop."""
        self.signal(signal.SIGCONT)
        self.stopped = False


class Load:
    """Steady work under way."""

    def __init__(self, work: Work, running: asyncio.Task[None]) -> None:
        self._work = work
        self._running = running

    async def progress(self, count: int) -> None:
        """Wait until so many workflows more are finished."""
        goal = self._work.finished + count

        def finished() -> bool:
            if self._running.done():
                self._running.result()
            return self._work.finished >= goal

        await until(finished, f"{count} workflows more are finished")


class Cluster:
    """Members of one namespace. Made by :func:`cluster`, which ends whatever still runs."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path) -> None:
        self.raw = RawLog(bootstrap, namespace)
        self.folder = folder
        self.address = f"kafka://{bootstrap}"
        self.namespace = namespace
        self.members: list[Member] = []
        self.client: Client
        self._owned: dict[int, set[int]] = {}

    def coordinator(self, name: str, *options: str, group: str = "", bootstrap: str = "") -> Member:
        """A coordinator, in the group of all others or in one of its own."""
        environ = {GROUP: f"{self.namespace}.{group}"} if group else {}
        modules = ("tests.kafka.flows", "tests.kafka.stops")
        data = ("--data", str(self.folder / name))
        return self._member(name, "coordinator", *modules, *data, *options, bootstrap=bootstrap, **environ)

    def worker(self, name: str, *options: str, slots: int = 20) -> Member:
        """A worker."""
        return self._member(name, "worker", "tests.kafka.flows", "--slots", str(slots), *options)

    def view(self, name: str) -> Member:
        """A view, with a folder and a port of its own."""
        return self._member(name, "view", "--port", "0", "--data", str(self.folder / name / "data"))

    def _member(self, name: str, *arguments: str, bootstrap: str = "", **environ: str) -> Member:
        where = (
            "--log",
            f"kafka://{bootstrap}" if bootstrap else self.address,
            "--namespace",
            self.namespace,
        )
        environ |= {FOLDER: str(self.folder), "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT)}
        return Member(name, self.folder, *arguments, *where, environ=environ)

    async def start(self, *members: Member) -> None:
        """Start members, and wait until all say that they are ready."""
        self.members += members
        await asyncio.gather(*(member.ready() for member in members))

    async def kill(self, member: Member) -> None:
        """SIGKILL."""
        self.members.remove(member)
        await member.over(kill=True)

    async def end(self, member: Member) -> None:
        """SIGTERM, and wait for the end."""
        self.members.remove(member)
        await member.over(kill=False)

    def owners(self) -> dict[int, set[int]]:
        """By pid of each coordinator that runs: the partitions that its last beat says it owns."""
        pids = {member.pid for member in self.members if not member.stopped}
        return {pid: owned for pid, owned in self._owned.items() if pid in pids}

    async def follow(self, beats: BeatStream) -> None:
        """Take note of beats, without an end."""
        while True:
            for delivered in await beats.next(PATIENCE_S):
                beat = delivered.beat
                if isinstance(beat, CoordinatorBeat):
                    self._owned[int(beat.identity.partition("@")[0])] = set(beat.partitions)

    async def shared_by(self, coordinators: Iterable[Member], patience_s: float = PATIENCE_S) -> None:
        """Wait until these own all partitions, each at least one."""
        pids = {member.pid for member in coordinators}

        def shared() -> bool:
            for member in self.members:
                member.check()
            owners = {pid: owned for pid, owned in self.owners().items() if pid in pids}
            owned = sorted(number for numbers in owners.values() for number in numbers)
            return owned == list(range(PARTITIONS)) and len(owners) == len(pids) and all(owners.values())

        await until(shared, f"{PARTITIONS} partitions are shared by {len(pids)}", patience_s)

    def id_on(self, partition: int, prefix: str) -> str:
        """A workflow id of a partition."""
        numbers = range(1_000)
        return next(id for n in numbers if partition_of(id := f"{prefix}-{n}", PARTITIONS) == partition)

    async def autopsy(self) -> Autopsy:
        """What the topics and the ledger say."""
        return await asyncio.to_thread(self._autopsy)

    def _autopsy(self) -> Autopsy:
        histories = {p: self.raw.read(HISTORY, p) for p in range(PARTITIONS)}
        commands = [record for p in range(PARTITIONS) for record in self.raw.read(COMMANDS, p)]
        return Autopsy(histories, commands, self.folder)

    @asynccontextmanager
    async def under_load(self, flows: int = 6) -> AsyncIterator[Load]:
        """Steady work goes on meanwhile; all of it is finished at the end."""
        work = Work(self.client, self.folder)
        running = asyncio.create_task(work.run(flows=flows))
        load = Load(work, running)
        try:
            await load.progress(5)
            yield load
            work.enough.set()
            async with asyncio.timeout(PATIENCE_S):
                await running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def cluster(bootstrap: str, namespace: str, folder: Path) -> AsyncIterator[Cluster]:
    """A namespace without members yet, and a client of it. What runs at the end is killed."""
    made = Cluster(bootstrap, namespace, folder)
    made.raw.create_topics(partitions=PARTITIONS)
    log = connect(made.address, namespace=namespace)
    following = asyncio.create_task(made.follow(await log.open_beats()))
    try:
        async with Client(log) as made.client:
            yield made
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        for member in made.members:
            await member.over(kill=True)
        await log.close()
        made.raw.close()
