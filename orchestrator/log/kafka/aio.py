"""Kafka as clients and workers see it: asyncio, typed messages, no groups and no rebalances.

What is sent goes through one producer (``aio_sender``), what is read through one consumer (``aio_reader``).
Nobody knows who else reads a partition of ``tasks`` or ``replies``, so a name decides which one it takes;
readers that meet on one pass over each other's records by a header.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from orchestrator.codec.avro import MAX_RECORD_BYTES
from orchestrator.errors import ConfigError, RecordRefused, Unavailable
from orchestrator.log.aio import BeatStream, Inbox, ReplyStream
from orchestrator.log.kafka import admin
from orchestrator.log.kafka.aio_reader import Reader
from orchestrator.log.kafka.aio_sender import Sender
from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.letters import letter_of, letter_record
from orchestrator.log.port import Record
from orchestrator.log.schemas import Schemas
from orchestrator.log.topics import DEAD_LETTERS, META, REPLIES, TASKS, TOPICS, refusal
from orchestrator.log.typed import BEAT, INBOX, REPLY, Channel, beat_record, command_record, least_used
from orchestrator.log.waiting import Acknowledgements, Token, WaitingStream
from orchestrator.protocol.commands import Command
from orchestrator.protocol.tasks import WorkerBeat

T = TypeVar("T")

ANSWER_TIMEOUT_S = 30.0
"""Brokers that have not acknowledged by then are away or hopelessly overloaded."""

OPEN_TIMEOUT_S = 10.0
"""For the end of a partition: who starts a process waits for it, and is told soon."""

MEMBER = "orchestrator"
"""How the broker's operators see a process, unless its settings have a ``client.id``."""

_logger = logging.getLogger(__name__)


class KafkaAioLog:
    """Implements :class:`orchestrator.log.aio.AioLog` for one event loop.

    Make one per process and share it: all its clients and workers share its connections.

    Args:
        settings: which brokers, which namespace, and how to reach them.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._closed = False
        self._partitions = 0
        self._learned: set[admin.Role] = set()
        self._learning = asyncio.Lock()
        self._early: list[tuple[Callable[[int], Record], Token]] = []
        self._addressing: asyncio.Task[None] | None = None
        clients = Clients(settings, settings.options.get("client.id", MEMBER))
        self._health = clients.health
        self._waiting = Acknowledgements(
            lambda: self._health.unanswered(f"no acknowledgement for {ANSWER_TIMEOUT_S:.0f} s")
        )
        self._sender = Sender(clients, self._waiting)
        self._reader = Reader(clients.listener, settings.topic, self._health, self._set_aside)
        self._reader.beside(Channel(META, "", Schemas().take))

    @property
    def lost_records(self) -> int:
        """How many records were gone before they could be read; their readers were told."""
        return self._reader.lost_records

    def send(self, command: Command) -> asyncio.Future[int]:
        """Append a command to the partition of its workflow id; done when all replicas in sync have it.

        Raises:
            RecordRefused: the command is too large, or the namespace is missing or not permitted.
            PayloadError: the command cannot be encoded.
            Unavailable: the log is closed, or the brokers did not acknowledge in time.
        """
        return self._append(partial(command_record, command))

    def post(self, command: Command, on_failed: Callable[[Exception], None]) -> None:
        """Append a command whose answer will tell that it is durable, see the port."""
        try:
            self._submit(partial(command_record, command), on_failed)
        except Exception as error:
            on_failed(error)

    async def beat(self, beat: WorkerBeat) -> int:
        """Append a beat; returns its offset when it is acknowledged."""
        return await self._append(lambda partitions: beat_record(beat))

    async def open_inbox(self, worker: str) -> Inbox:
        """Read a partition of ``tasks`` from its end, for one worker incarnation."""
        return await self._open(INBOX, worker)

    async def open_replies(self, client_id: str) -> ReplyStream:
        """Read a partition of ``replies`` from its end, for one client."""
        return await self._open(REPLY, client_id)

    async def open_beats(self) -> BeatStream:
        """Read ``workers`` from its end."""
        return await self._open(BEAT, "")

    async def close(self) -> None:
        """Read no more; what is not acknowledged yet is ``Unavailable`` to its sender, and may still land."""
        if self._closed:
            return
        self._closed = True
        self._waiting.fail_all("the log was closed before it answered")
        if self._addressing is not None:
            self._addressing.cancel()
            await asyncio.gather(self._addressing, return_exceptions=True)
        await asyncio.gather(self._sender.close(), self._reader.close())

    # --- appending ---

    def _append(self, draft: Callable[[int], Record]) -> asyncio.Future[int]:
        future = self._waiting.expect(ANSWER_TIMEOUT_S)
        try:
            self._submit(draft, future)
        except Exception as error:
            self._waiting.fail(future, error)
        return future

    def _submit(self, draft: Callable[[int], Record], token: Token) -> None:
        self._check_open()
        if self._addressing is not None or not self._sender.connected:
            self._early.append((draft, token))
            if self._addressing is None:
                self._addressing = asyncio.create_task(self._address(), name="find Kafka")
            return
        record = draft(self._partitions)
        if refused := refusal(record, self._partitions, MAX_RECORD_BYTES):
            raise RecordRefused(refused)
        self._sender.submit(self.settings.topic(record.topic), record, token)

    async def _address(self) -> None:
        """Submit what came before it was known how many partitions there are."""
        error: Exception | None = None
        try:
            await self._learn("client")
        except (ConfigError, Unavailable) as found:
            error = RecordRefused(str(found)) if isinstance(found, ConfigError) else found
        early, self._early, self._addressing = self._early, [], None
        for draft, token in early:
            if error is not None:
                self._waiting.fail(token, error)
                continue
            try:
                self._submit(draft, token)
            except Exception as problem:
                self._waiting.fail(token, problem)

    def _set_aside(self, record: Record, reason: str) -> None:
        """A task that cannot be read becomes a dead letter: only the worker that it is for looks at it.

        Beats are set aside by coordinators, and a reply by nobody: its question is asked again.
        """
        if record.topic == TASKS:
            letter = letter_record(letter_of(record, reason))
            try:
                self._sender.submit(self.settings.topic(DEAD_LETTERS), letter, _not_set_aside)
            except Unavailable as error:
                _not_set_aside(error)

    # --- reading ---

    async def _open(self, channel: Channel[T], name: str) -> WaitingStream[T]:
        self._check_open()
        role: admin.Role = "client" if channel.topic == REPLIES else "worker"
        await self._learn(role)
        count = TOPICS[channel.topic].count(self._partitions)
        chosen = least_used(name, self._reader.used(channel.topic), count)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                return await self._reader.open(channel, chosen, name)
        except TimeoutError as error:
            await asyncio.to_thread(admin.check, self.settings, role)  # a topic that has gone is named
            words = self._health.unanswered(f"it cannot be read from within {OPEN_TIMEOUT_S:.0f} s")
            raise Unavailable(words) from error

    # --- connecting ---

    async def _learn(self, role: admin.Role) -> None:
        """Whether a role can work on these brokers, and with how many partitions.

        Raises:
            Unavailable: no broker answers, or the log was closed.
            ConfigError: the namespace is not there as it was set up, or is not permitted; or the Kafka client
                refuses a setting.
        """
        async with self._learning:
            if role not in self._learned:
                namespace = await asyncio.to_thread(admin.check, self.settings, role)
                self._partitions = namespace.partitions
                self._learned.add(role)
            if not self._sender.connected:
                await self._sender.connect()

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this side of the log is closed")


def _not_set_aside(error: Exception) -> None:
    _logger.error("a task that cannot be read is not among the dead letters: %s", error)
