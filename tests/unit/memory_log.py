"""The asyncio side of a log, in memory: what is sent is durable at once, and faults come when told.

Time is the log's own and stands still unless a test moves ``now_ms``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from orchestrator.errors import Unavailable
from orchestrator.log.aio import DeliveredBeat, DeliveredTask
from orchestrator.protocol.commands import Command
from orchestrator.protocol.tasks import Beat, CoordinatorBeat, Reply, Task, WorkerBeat

M = TypeVar("M")


class MemoryStream:
    def __init__(self, name: str, offset: int) -> None:
        self.partition = 3
        self.offset = offset
        self.name = name
        self.closed = False
        self.fault: Exception | None = None
        self.paused = False
        """While set, what is appended is not shown to the reader."""
        self._items: list[Any] = []
        self._news = asyncio.Event()

    def resume(self) -> None:
        self.paused = False
        self._news.set()

    def put(self, item: Any) -> None:
        self._items.append(item)
        if not self.paused:
            self._news.set()

    def fail(self, fault: Exception) -> None:
        """The read that waits, or the next one, raises this."""
        self.fault = fault
        self._news.set()

    async def next(self, timeout_s: float) -> list[Any]:
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return []
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        self._news.clear()
        items, self._items = self._items, []
        self.offset += len(items)
        return items

    async def close(self) -> None:
        self.closed = True


class MemoryLog:
    """An ``AioLog``; the test plays the coordinator with what stands below the port's methods."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.commands: list[Command] = []
        self.beats: list[Beat] = []
        self.inboxes: list[MemoryStream] = []
        self.reply_streams: list[MemoryStream] = []
        self.beat_streams: list[MemoryStream] = []
        self.faults: dict[str, list[Exception]] = {}
        self.on_send: Callable[[Command], None] = lambda command: None
        self.closed = False
        self._changed = asyncio.Condition()
        self._taken = 0
        self._posts: set[asyncio.Task[None]] = set()

    # --- the port ---

    async def send(self, command: Command) -> None:
        self._fault("send")
        self.commands.append(command)
        await self._notify()
        self.on_send(command)

    def post(self, command: Command, on_failed: Callable[[Exception], None]) -> None:
        def sent(task: asyncio.Task[None]) -> None:
            self._posts.discard(task)
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                on_failed(error)

        task = asyncio.get_running_loop().create_task(self.send(command))
        self._posts.add(task)
        task.add_done_callback(sent)

    async def beat(self, beat: WorkerBeat) -> int:
        self._fault("beat")
        self._append_beat(beat)
        await self._notify()
        return len(self.beats) - 1

    async def open_inbox(self, worker: str) -> MemoryStream:
        self._fault("open_inbox")
        return self._open(self.inboxes, worker)

    async def open_replies(self, client_id: str) -> MemoryStream:
        self._fault("open_replies")
        stream = self._open(self.reply_streams, client_id)
        await self._notify()
        return stream

    async def open_beats(self) -> MemoryStream:
        self._fault("open_beats")
        stream = self._open(self.beat_streams, "")
        await self._notify()
        return stream

    async def close(self) -> None:
        self.closed = True

    # --- for tests ---

    def fail_next(self, operation: str, *errors: Exception) -> None:
        """The next calls of an operation raise these, one each."""
        self.faults.setdefault(operation, []).extend(errors)

    def deliver(self, task: Task, append_time_ms: int | None = None) -> None:
        """Append a task to the inbox of the worker that it names."""
        at = self.now_ms if append_time_ms is None else append_time_ms
        for inbox in self.inboxes:
            if inbox.name == task.worker and not inbox.closed:
                inbox.put(DeliveredTask(task, at))

    def reply(self, reply: Reply) -> None:
        """Append a reply; readers of that client that are open see it."""
        for stream in self.reply_streams:
            if stream.name == reply.client_id and not stream.closed:
                stream.put(reply)

    def coordinator_beat(self, coordinator: str = "c1") -> None:
        """Append a beat of a coordinator."""
        self._append_beat(CoordinatorBeat(coordinator=coordinator, identity="", number=1, partitions=(0,)))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is true of what was sent."""
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(condition)

    async def command(self, kind: type[M]) -> M:
        """The next command that was sent and not taken yet; it has to be of this kind."""
        await self.until(lambda: len(self.commands) > self._taken)
        command = self.commands[self._taken]
        self._taken += 1
        assert isinstance(command, kind), command
        return command

    async def worker(self, number: int = 1) -> str:
        """The name of the nth incarnation, once its first beat is there."""

        def names() -> list[str]:
            return list(dict.fromkeys(beat.worker for beat in self.worker_beats()))

        await self.until(lambda: len(names()) >= number)
        return names()[number - 1]

    def worker_beats(self) -> list[WorkerBeat]:
        """All beats of workers."""
        return [beat for beat in self.beats if isinstance(beat, WorkerBeat)]

    def _append_beat(self, beat: Beat) -> None:
        self.beats.append(beat)
        for stream in self.beat_streams:
            if not stream.closed:
                stream.put(DeliveredBeat(beat, len(self.beats) - 1, self.now_ms))

    def _open(self, streams: list[MemoryStream], name: str) -> MemoryStream:
        stream = MemoryStream(name, len(self.beats))
        streams.append(stream)
        return stream

    def _fault(self, operation: str) -> None:
        if self.closed:
            raise Unavailable("the log is closed")
        errors = self.faults.get(operation)
        if errors:
            raise errors.pop(0)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
