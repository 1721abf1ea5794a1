"""All roles in one process, on the embedded log.

::

    async with orchestrator.embedded(workflows=[Order], activities=[charge]) as client:
        print(await client.execute_workflow(Order.run, "o-17", id="order-17"))
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import tempfile
import threading
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from orchestrator import config
from orchestrator.activity.definition import ActivityDefinition
from orchestrator.api.embedded_overview import EmbeddedOverview
from orchestrator.api.reads import ThreadedReader
from orchestrator.api.upkeep import Upkeep
from orchestrator.client.client import Client
from orchestrator.coordinator.coordinator import Coordinator
from orchestrator.coordinator.meter import Meter
from orchestrator.coordinator.runtime import Runtime, SystemRuntime
from orchestrator.coordinator.watchdog import Abandoned, Watchdog
from orchestrator.errors import ConfigError, DefinitionError, LogError, Unavailable
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.embedded_aio import EmbeddedAioLog
from orchestrator.log.topics import HISTORY, USER_TOPICS
from orchestrator.protocol.ids import check_topic
from orchestrator.protocol.views import TopicRecord
from orchestrator.store.partition_store import PartitionStore
from orchestrator.telemetry.tracing import find_traces
from orchestrator.view.store_reader import StoreReader
from orchestrator.worker.worker import Worker
from orchestrator.workflow import determinism
from orchestrator.workflow.definition import WorkflowDefinition, definition_of

_logger = logging.getLogger(__name__)

RETENTION = timedelta(days=config.RETENTION_DAYS)

START_TIMEOUT_S = 60.0
"""How long an engine may take to own all its partitions: longer than any restore of a sane folder."""


_abandoned: list[Coordinator] = []
"""Coordinators whose thread is stuck. Kept: the collector would run ``finally`` blocks of workflows, on any
thread."""


class Engine:
    """The log and the coordinator of one data folder, and doors for clients, workers and readers."""

    def __init__(
        self,
        folder: Path,
        workflows: Sequence[type | WorkflowDefinition],
        *,
        runtime: Runtime | None = None,
        retention: timedelta = RETENTION,
        meter: Meter | None = None,
    ) -> None:
        """Open the folder and start the coordinator's thread; raises ``DataFolderInUse`` and the like.

        ``meter`` is told what happens there.
        """
        self.folder = folder
        definitions = {definition.name: definition for definition in map(_definition, workflows)}
        if len(definitions) != len(workflows):
            raise DefinitionError("two of the workflows have the same name; give one of them another name=")
        determinism.install()
        self.log = EmbeddedLog(folder)
        self.error: BaseException | None = None
        """Why the coordinator has ended; None while it works, and if it was closed."""
        self.fatal = ""
        """Why this process should end soon, though it still works; "" if all is well."""
        self._definitions = definitions
        self._runtime = runtime or SystemRuntime()
        self._retention_ms = round(retention.total_seconds() * 1_000)
        self._meter = meter
        self._stopped: list[Callable[[], object]] = []
        self.overview = EmbeddedOverview(self.log, self._stores)
        self.reader = StoreReader(self._stores, served=self.overview.served)
        self._suspects: frozenset[str] = frozenset()
        self._start({})
        self.log.on_failure(self._on_log_failed)
        self._upkeep = Upkeep(self.log)

    def _start(self, opened: dict[int, PartitionStore]) -> None:
        self._member = self.log.member()
        self._coordinator = Coordinator(
            self._member,
            self.folder / "store",
            self._definitions,
            self._runtime,
            log_id=self.log.cluster_id,
            identity=f"{os.getpid()}@{socket.gethostname()}",
            workers_end_with_log=not self._suspects,
            watch=Watchdog(self._on_hung),
            open_store=lambda number: opened.pop(number, None) or self._open_store(number),
            suspects=self._suspects,
            retention_ms=self._retention_ms,
            meter=self._meter,
            traces=find_traces(),
        )
        self._thread = threading.Thread(
            target=self._run, args=(self._coordinator,), name="coordinator", daemon=True
        )
        self._thread.start()

    def _open_store(self, number: int) -> PartitionStore:
        folder = self.folder / "store" / f"{number:05d}"
        store = PartitionStore(folder, log_id=self.log.cluster_id, indexed=True)
        seen, end = store.checkpoint.offset, self.log.end(HISTORY, number)
        if seen > end:
            store.close()
            raise ConfigError(
                f"the data folder {self.folder} has lost history: partition {number} ends at {end}, and "
                f"{seen} records of it were seen; restore the whole folder from one copy, or delete its "
                f"'store' to go on with what is left"
            )
        return store

    def _on_hung(self, workflow_id: str) -> None:
        """The coordinator's thread is stuck in a workflow's code for good: go on without it, and say so.

        Its successor takes over the open stores, which cannot be opened twice.
        """
        _abandoned.append(self._coordinator)
        self._coordinator.abandon()
        self._member.close()
        opened = {number: found.store for number, found in self._coordinator.partitions.items()}
        self._suspects |= {workflow_id}
        self.fatal = (
            f"the code of workflow {workflow_id!r} does not give way and cannot be ended; the run is "
            "blocked, and this process should be restarted, for the stuck thread slows it down"
        )
        self._start(opened)

    def _on_log_failed(self, error: LogError) -> None:
        """Nothing can be appended any more, so nothing can be decided."""
        self.error = error
        self._coordinator.stop()
        self._tell_stopped()  # now: closing takes its time on such a disk

    def _tell_stopped(self) -> None:
        calls, self._stopped = self._stopped, []
        for call in calls:
            call()

    def _run(self, coordinator: Coordinator) -> None:
        try:
            coordinator.run()
        except Abandoned:
            return
        except BaseException as error:
            self.error = error
            _logger.critical("the engine has stopped", exc_info=error)
            _let_go(error)
        finally:
            if coordinator is self._coordinator:
                self._tell_stopped()

    def _stores(self) -> list[PartitionStore | None]:
        partitions = self._coordinator.partitions
        found = [partitions.get(number) for number in range(self.log.partitions)]
        return [part.store if part is not None and part.ownership.running else None for part in found]

    @property
    def ready(self) -> bool:
        """Whether all partitions are owned."""
        return all(store is not None for store in self._stores())

    def on_stopped(self, call: Callable[[], object]) -> None:
        """Call this, in whatever thread, once nothing will be decided any more, for whatever reason."""
        self._stopped.append(call)

    async def wait_ready(self) -> None:
        """Wait until all partitions are owned.

        Raises:
            ConfigError: the folder is damaged.
            Unavailable: the engine has stopped for another reason.
        """
        async with asyncio.timeout(START_TIMEOUT_S):
            while not self.ready:
                if not self._thread.is_alive():
                    raise self.error if isinstance(self.error, ConfigError) else self.gone()
                await asyncio.sleep(0.005)

    def gone(self) -> Unavailable:
        """What to tell those who ask an engine that has ended."""
        return Unavailable(f"the engine has stopped: {self.error or 'it was closed'}")

    def read_topic(self, topic: str, offset: int, limit: int, timeout_s: float) -> list[TopicRecord]:
        """Business events on a topic from ``offset`` on; waits for the first one for at most ``timeout_s``.

        Raises:
            UsageError: the topic's name cannot be one.
            LogError: the engine was closed.
        """
        place = USER_TOPICS + check_topic(topic)
        with self.log.changed:
            self.log.changed.wait_for(lambda: self.log.has_topic(place, offset), timeout_s)
            if not self.log.has_topic(place, offset):
                return []
        return [
            TopicRecord(
                offset=record.offset,
                time_ms=record.time_ms,
                key=record.key,
                value=record.value,
                headers=dict(record.headers),
            )
            for record in self.log.read(place, 0, offset, limit)
        ]

    def aio(self) -> EmbeddedAioLog:
        """The log for clients and workers of the running event loop."""
        return EmbeddedAioLog(self.log)

    def close(self) -> None:
        """Stop the coordinator and close the log. What was accepted is in the folder."""
        self._coordinator.stop()
        self._thread.join()
        self._upkeep.close()
        self.log.close()


class EmbeddedClient(Client):
    """A client of the engine in this process, which holds users' topics too."""

    def __init__(self, engine: Engine, aio: EmbeddedAioLog) -> None:
        """Made by :func:`embedded`."""
        super().__init__(aio, reader=ThreadedReader(engine.reader))
        self._engine = engine

    async def read_topic(
        self,
        topic: str,
        *,
        offset: int = 0,
        limit: int = 1_000,
        timeout: float = 0.0,  # noqa: ASYNC109  # how long to wait for an event, not for an answer
    ) -> list[TopicRecord]:
        """What workflows published to a topic, from ``offset`` on: as a consumer of Kafka would see it.

        Waits for the first record for at most ``timeout`` seconds: events leave a little after the turn that
        published them. The topic exists from its first record on, and has one partition.

        Raises:
            UsageError: the topic's name cannot be one.
            LogError: the engine was closed.
        """
        return await asyncio.to_thread(self._engine.read_topic, topic, offset, limit, timeout)


@asynccontextmanager
async def embedded(
    data: str | Path | None = None,
    *,
    workflows: Sequence[type],
    activities: Sequence[Callable[..., Any] | ActivityDefinition] = (),
    task_queue: str = "default",
    max_concurrent_activities: int = 100,
    retention: timedelta = RETENTION,
) -> AsyncIterator[EmbeddedClient]:
    """Run everything in this process: an engine, a worker for ``activities``, and a client.

    Args:
        data: the folder that keeps all data; None for a temporary one that is removed at the end.
        workflows: classes that ``@workflow.defn`` decorates.
        activities: functions that ``@activity.defn`` decorates; without any, no worker is started.
        task_queue: the queue that the worker serves.
        max_concurrent_activities: the worker's slots.
        retention: how long closed runs are kept.

    Yields:
        A client of the engine, which can read the topics that workflows publish to.

    Raises:
        DataFolderInUse: another process has the folder.
        ConfigError: the folder is damaged or cannot be used.
    """
    temporary = tempfile.mkdtemp(prefix="orchestrator-") if data is None else None
    folder = Path(temporary or data or "")
    engine = await asyncio.to_thread(Engine, folder, workflows, retention=retention)
    try:
        loop = asyncio.get_running_loop()
        aio = engine.aio()
        client = EmbeddedClient(engine, aio)
        engine.on_stopped(lambda: loop.call_soon_threadsafe(lambda: client.give_up(engine.gone())))
        try:
            await engine.wait_ready()
            async with client:
                if not activities:
                    yield client
                    return
                worker = Worker(
                    aio,
                    activities=activities,
                    task_queue=task_queue,
                    max_concurrent_activities=max_concurrent_activities,
                )
                async with worker:
                    yield client
        finally:
            await aio.close()
    finally:
        await asyncio.to_thread(engine.close)
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _let_go(error: BaseException | None) -> None:
    """Clear the frames of an error that is kept: a cursor in them would keep its store locked."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _definition(workflow: type | WorkflowDefinition) -> WorkflowDefinition:
    return workflow if isinstance(workflow, WorkflowDefinition) else definition_of(workflow)
