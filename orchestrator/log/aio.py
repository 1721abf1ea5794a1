"""What clients and workers need of a log: asyncio, typed messages, and nothing more.

Adapters: ``embedded`` (in the same process), ``http`` (against a running ``orchestrator dev``) and
``kafka`` (librdkafka). They encode and decode; clients and workers see no bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from orchestrator.protocol.commands import Command
from orchestrator.protocol.tasks import Beat, Reply, Task, WorkerBeat


class DeliveredTask(NamedTuple):
    """A task as it stood in an inbox; ``append_time_ms`` is the log's time, not the worker's."""

    task: Task
    append_time_ms: int


class DeliveredBeat(NamedTuple):
    """A beat as it stood on ``workers``."""

    beat: Beat
    offset: int
    append_time_ms: int


class Inbox(Protocol):
    """A worker incarnation's stream of tasks, from the end of its partition at the time of opening."""

    partition: int
    offset: int
    """The offset after the last record of the partition that was looked at."""

    async def next(self, timeout_s: float) -> list[DeliveredTask]:
        """The next tasks for this worker; empty after ``timeout_s``."""

    async def close(self) -> None:
        """Read no more."""


class ReplyStream(Protocol):
    """A client's stream of replies, from the end of its partition at the time of opening."""

    partition: int

    async def next(self, timeout_s: float) -> list[Reply]:
        """The next replies to this client; empty after ``timeout_s``."""

    async def close(self) -> None:
        """Read no more."""


class BeatStream(Protocol):
    """The stream of all beats."""

    async def next(self, timeout_s: float) -> list[DeliveredBeat]:
        """The next beats; empty after ``timeout_s``."""

    async def close(self) -> None:
        """Read no more."""


class AioLog(Protocol):
    """The log as clients and workers see it. Methods raise ``Unavailable`` if no answer came in time,
    ``RecordRefused`` if the log will never take the record."""

    def send(self, command: Command) -> Awaitable[object]:
        """Append a command to the partition of its workflow id; done when it is durable."""

    def post(self, command: Command, on_failed: Callable[[Exception], None]) -> None:
        """Append a command whose answer will tell that it is durable; raises nothing.

        ``on_failed`` is called on the loop, maybe at once, with what :meth:`send` would have raised. That no
        outcome came in time may be left out: who posts repeats what is not answered.
        """

    async def beat(self, beat: WorkerBeat) -> int:
        """Append a beat; returns its offset when it is acknowledged."""

    async def open_inbox(self, worker: str) -> Inbox:
        """Choose an inbox partition for a worker incarnation and read it from its end."""

    async def open_replies(self, client_id: str) -> ReplyStream:
        """Choose a partition of ``replies`` for a client and read it from its end."""

    async def open_beats(self) -> BeatStream:
        """Read ``workers`` from its end."""

    async def close(self) -> None:
        """Release everything this adapter holds."""
