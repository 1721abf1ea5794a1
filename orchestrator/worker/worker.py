"""The worker: reads its inbox, runs activities, reports, and beats.

The rules are elsewhere: which delivery to start (``inbox``), when to beat and when an incarnation is
lost (``incarnation``), what an attempt reports (``execution``). This is the asyncio around them. Each
incarnation has three loops::

    beat          next_beat ──▶ workers             regular, and at changes
    read_beats    workers ──▶ read_back             is this incarnation still alive?
    read_inbox    tasks ──▶ receive ──▶ start | give back | cancel

and each started attempt is a task of its own (``attempts``).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from orchestrator.activity.definition import ActivityDefinition, by_name
from orchestrator.codec.payloads import DEFAULT, PayloadConverter
from orchestrator.errors import LogError, Unavailable, UsageError
from orchestrator.log.aio import AioLog, BeatStream, DeliveredBeat, DeliveredTask, Inbox
from orchestrator.log.connect import connect
from orchestrator.protocol.tasks import WorkerBeat
from orchestrator.telemetry.tracing import find_traces
from orchestrator.telemetry.versions import version
from orchestrator.worker.attempts import Attempts, Meter, Unmetered, delays
from orchestrator.worker.execution import Stop
from orchestrator.worker.inbox import InboxRules
from orchestrator.worker.incarnation import Incarnation, Load
from orchestrator.workflow.durations import Duration, to_ms

_log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_S = 10.0
"""How long one read of a stream waits for something to arrive."""

LINGER_S = 0.1
"""How long a worker goes on reading its inbox after it said that it drains: deliveries that were under
way are given back, instead of being lost with it."""

GOODBYE_S = 2.0
"""How long a worker that shuts down waits for its last beats to be acknowledged."""


class Worker:
    """Runs activities for the workflows of one log.

    ::

        async with Worker("http://127.0.0.1:7350", activities=[charge, Mail().send]):
            await forever

    Args:
        log: the address of an engine (``http://...``) or of Kafka (``kafka://...``), or a log's asyncio side;
            the latter stays the caller's to close.
        activities: functions and bound methods that ``@activity.defn`` decorates.
        task_queue: the queue, or queues, whose activities it runs.
        max_concurrent_activities: its slots: no more attempts run at a time, async and sync together.
        identity: who it is, for people; default ``pid@host``.
        graceful_shutdown_timeout: how long running attempts may go on after :meth:`shutdown`.
        converter: how arguments and results are encoded.
        namespace: on Kafka: which one; default ``$ORCHESTRATOR_NAMESPACE``, or else "default".
        kafka_config: on Kafka: a file with settings of its client, ``name=value``, as librdkafka has them.
        meter: is told of each attempt, such as :class:`orchestrator.worker.metering.MetricsMeter`.

    Raises:
        UsageError: there is nothing to run, no slot, no queue, or two activities share a name.
    """

    def __init__(
        self,
        log: AioLog | str,
        *,
        activities: Sequence[Callable[..., Any] | ActivityDefinition],
        task_queue: str | Sequence[str] = "default",
        max_concurrent_activities: int = 100,
        identity: str | None = None,
        graceful_shutdown_timeout: Duration = 10.0,
        converter: PayloadConverter = DEFAULT,
        namespace: str = "",
        kafka_config: Path | str | None = None,
        meter: Meter | None = None,
    ) -> None:
        queues = (task_queue,) if isinstance(task_queue, str) else tuple(task_queue)
        if not activities:
            raise UsageError("the worker has no activities; pass at least one as activities=[...]")
        if max_concurrent_activities < 1:
            raise UsageError(
                f"max_concurrent_activities is {max_concurrent_activities}; a worker needs at least one slot"
            )
        if not queues or "" in queues:
            raise UsageError(f"task_queue is {task_queue!r}; name at least one queue")
        self.identity = identity or f"{os.getpid()}@{socket.gethostname()}"
        self._address_or_log = log
        self._namespace, self._kafka_config = namespace, kafka_config
        self._definitions = by_name(activities)
        self._queues = queues
        self._slots = max_concurrent_activities
        self._grace_s = to_ms(graceful_shutdown_timeout, "graceful_shutdown_timeout") / 1_000
        self._converter = converter
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._started = False
        self._life: _Life | None = None
        self._meter = meter if meter is not None else Unmetered()
        self._background: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Run until :meth:`shutdown`, then let attempts finish and say goodbye. Once per worker.

        A cancelled ``run()`` shuts down too, but gives running attempts no time to finish.
        """
        if self._started:
            raise UsageError("this worker was run already; make a new Worker")
        self._started = True
        shared = self._address_or_log
        if isinstance(shared, str):
            self._aio = connect(shared, namespace=self._namespace, config_file=self._kafka_config)
        else:
            self._aio = shared
        self._attempts = Attempts(
            self._aio,
            definitions=self._definitions,
            slots=self._slots,
            converter=self._converter,
            identity=self.identity,
            on_freed=self._changed.set,
            meter=self._meter,
            traces=find_traces(),
        )
        self._meter.opened(self._slots)
        try:
            while not self._stopping.is_set():
                life = await self._open()
                if life is not None:
                    self._life = life
                    await self._live(life)
                    self._life = None
        finally:
            await self._attempts.close()
            if isinstance(shared, str):
                await self._aio.close()

    @property
    def ready(self) -> bool:
        """Whether its beats come back now, so that it is sent activities. For any thread."""
        life = self._life
        return life is not None and life.incarnation.may_start(life.loop.time())

    def shutdown(self) -> None:
        """Take nothing new and let :meth:`run` end; returns at once. Call it from the loop's thread."""
        self._stopping.set()

    async def __aenter__(self) -> Self:
        self._background = asyncio.create_task(self.run(), name=f"worker {self.identity}")
        self._background.add_done_callback(self._ended)
        await asyncio.sleep(0)
        if self._background.done():
            await self._background  # it could not even begin
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        assert self._background is not None
        await self._background

    def _ended(self, run: asyncio.Task[None]) -> None:
        if not run.cancelled() and (error := run.exception()) is not None:
            _log.error("worker %s ended and runs nothing more: %r", self.identity, error)

    # --- an incarnation ---

    async def _open(self) -> _Life | None:
        """A new incarnation with its streams; None if the worker is to stop before the log answers."""
        worker = uuid.uuid4().hex
        for delay_s in delays():
            inbox: Inbox | None = None
            try:
                inbox = await self._aio.open_inbox(worker)
                return _Life(self._first_beat(worker, inbox.partition), inbox, await self._aio.open_beats())
            except Unavailable as error:
                _log.warning("no answer from the log, worker %s tries again: %s", self.identity, error)
                if inbox is not None:
                    await inbox.close()
            if await _wait(self._stopping, delay_s):
                return None
        return None

    def _first_beat(self, worker: str, inbox: int) -> WorkerBeat:
        return WorkerBeat(
            worker=worker,
            identity=self.identity,
            task_queues=self._queues,
            slots=self._slots,
            running=0,
            inbox=inbox,
            inbox_offset=0,
            number=0,
            activity_types=tuple(sorted(self._definitions)),
            version=version(),
        )

    async def _live(self, life: _Life) -> None:
        """One incarnation, until it is lost or the worker stops."""
        read_beats = self._read(life, life.beats, self._take_beats)
        read_inbox = self._read(life, life.inbox, self._take_tasks)
        loops = {asyncio.create_task(loop) for loop in (self._beat(life), read_beats, read_inbox)}
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            ended, _ = await asyncio.wait({*loops, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping in ended:
                await self._drain(life, self._grace_s)
            for loop in loops & ended:
                loop.result()
        except BaseException:
            await self._drain(life, 0.0)
            raise
        finally:
            await _cancel(*loops, stopping)
            if self._stopping.is_set():
                await self._say_goodbye(life)
            else:
                _log.warning(
                    "worker %s goes on as a new incarnation; its attempts were given up", self.identity
                )
                self._attempts.stop_all(Stop.LOST)
            await life.inbox.close()
            await life.beats.close()

    async def _drain(self, life: _Life, grace_s: float) -> None:
        """Take nothing new; let attempts finish, then stop them."""
        self._stopping.set()
        for returned in life.rules.drain():
            self._attempts.give_back(returned, life.rules)
        self._changed.set()
        if await _wait(life.drain_shown, GOODBYE_S):
            await asyncio.sleep(LINGER_S)
        await self._attempts.finish(grace_s)

    async def _say_goodbye(self, life: _Life) -> None:
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self._aio.beat(life.incarnation.last_beat(self._load(life), _now()))
        except (TimeoutError, LogError, Unavailable) as error:
            _log.warning("worker %s could not say goodbye: %r", self.identity, error)

    # --- the three loops; each returns when the incarnation is lost ---

    async def _beat(self, life: _Life) -> None:
        incarnation = life.incarnation
        while not incarnation.lost:
            self._changed.clear()
            load = self._load(life)
            beat = incarnation.next_beat(load, _now())
            if beat is None:
                # A change is shown in its time, so only an unchanged load has to listen for changes.
                due_s = incarnation.due_at(load) - _now()
                if load == incarnation.shown:
                    await _wait(self._changed, due_s)
                else:
                    await asyncio.sleep(due_s)
                continue
            try:
                await self._aio.beat(beat)
                if beat.draining:
                    life.drain_shown.set()
            except Unavailable as error:
                _log.warning("a beat of worker %s was not acknowledged: %s", self.identity, error)
            incarnation.sent()
            self._attempts.stop_overdue()

    async def _read(self, life: _Life, stream: _Stream[T], take: Callable[[_Life, list[T]], None]) -> None:
        pauses = delays()
        while not life.incarnation.lost:
            try:
                batch = await stream.next(POLL_S)
            except Unavailable:
                await asyncio.sleep(next(pauses))  # the stream goes on where it was
            except LogError as error:
                _log.warning("worker %s lost a stream: %s", self.identity, error)
                life.incarnation.give_up()
            else:
                pauses = delays()
                take(life, batch)

    def _take_beats(self, life: _Life, beats: list[DeliveredBeat]) -> None:
        life.incarnation.read_back(beats)
        if life.incarnation.may_start(_now()):
            for task in life.rules.release():
                self._attempts.start(task, life.rules)

    def _take_tasks(self, life: _Life, batch: list[DeliveredTask]) -> None:
        occupied = len(self._attempts) - life.rules.running
        may_start = life.incarnation.may_start(_now())
        verdict = life.rules.receive(batch, may_start=may_start, occupied=occupied)
        self._attempts.obey(verdict, life.rules)
        life.inbox_offset = life.inbox.offset
        self._changed.set()

    def _load(self, life: _Life) -> Load:
        occupied = len(self._attempts) - life.rules.running
        return Load(occupied + life.rules.busy, life.inbox_offset, self._stopping.is_set())


class _Stream(Protocol[T]):
    async def next(self, timeout_s: float) -> list[T]: ...


class _Life:
    """One incarnation: its rules, its streams, and what its loops tell each other."""

    def __init__(self, first_beat: WorkerBeat, inbox: Inbox, beats: BeatStream) -> None:
        self.loop = asyncio.get_running_loop()
        self.incarnation = Incarnation(first_beat)
        self.rules = InboxRules(first_beat.worker, first_beat.slots)
        self.inbox = inbox
        self.beats = beats
        self.inbox_offset = inbox.offset
        self.drain_shown = asyncio.Event()


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Whether the event was set in time."""
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return event.is_set()


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
