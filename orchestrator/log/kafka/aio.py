"""Kafka as clients and workers see it: asyncio, typed messages, no groups and no rebalances.

What is sent goes through one producer (``aio_sender``), what is read through one consumer (``aio_reader``).
Nobody knows who else reads a partition of ``tasks`` or ``replies``, so a name decides which one it takes;
readers that meet on one pass over each other's records by a header.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

from orchestrator.codec.avro import MAX_RECORD_BYTES
from orchestrator.errors import ConfigError, RecordRefused, Unavailable
from orchestrator.log.aio import BeatStream, Inbox, ReplyStream
from orchestrator.log.kafka import admin
from orchestrator.log.kafka.aio_clients import start, stop_consumer, stop_producer
from orchestrator.log.kafka.aio_reader import Reader
from orchestrator.log.kafka.aio_sender import BATCH_BYTES, Sender
from orchestrator.log.kafka.aio_settings import translate
from orchestrator.log.kafka.outage import Outage
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
"""For finding the brokers and the end of a partition: who starts a process waits for it, and is told soon."""

REQUEST_TIMEOUT_MS = 10_000
"""Of one request. A connection that is silent for so long is given up and made anew."""

FETCH_WAIT_MS = 250
"""How long the broker holds a fetch without records. A new stream waits for the end of the one under way."""

LEARN_AGAIN_S = 5.0
"""What is known of the namespace for longer is asked for again with each new connection."""


_logger = logging.getLogger(__name__)


class KafkaAioLog:
    """Implements :class:`orchestrator.log.aio.AioLog` for one event loop.

    Make one per process and share it: all its clients and workers share its connections.

    Args:
        settings: which brokers, which namespace, and how to reach them.

    Raises:
        ConfigError: a setting cannot be followed.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings
        self._aio = translate(settings)
        self._closed = False
        self._partitions = 0
        self._learned_at: dict[admin.Role, float] = {}
        self._learning = asyncio.Lock()
        self._early: list[tuple[Callable[[int], Record], Token]] = []
        self._addressing: asyncio.Task[None] | None = None
        self._outage = Outage(settings.bootstrap)
        self._waiting = Acknowledgements(
            lambda: self._outage.describe(f"no acknowledgement for {ANSWER_TIMEOUT_S:.0f} s")
        )
        self._sender = Sender(self._connect_producer, self._waiting, ANSWER_TIMEOUT_S, self._outage)
        self._reader = Reader(self._connect_consumer, settings.topic, self._outage, self._set_aside)
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
        if not self._partitions:
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
        if role not in self._learned_at:
            await self._learn(role)
        count = TOPICS[channel.topic].count(self._partitions)
        chosen = least_used(name, self._reader.used(channel.topic), count)
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                return await self._reader.open(channel, chosen, name)
        except TimeoutError as error:
            words = self._outage.describe(f"it cannot be read from within {OPEN_TIMEOUT_S:.0f} s")
            raise Unavailable(words) from error

    # --- connecting ---

    async def _learn(self, role: admin.Role) -> None:
        """Whether a role can work on these brokers, and with how many partitions; asked again with time.

        Raises:
            Unavailable: no broker answers.
            ConfigError: the namespace is not there as it was set up, or is not permitted.
        """
        async with self._learning:
            loop = asyncio.get_running_loop()
            if loop.time() > self._learned_at.get(role, -inf) + LEARN_AGAIN_S:
                namespace = await asyncio.to_thread(admin.check, self.settings, role)
                self._partitions = namespace.partitions
                self._learned_at[role] = loop.time()

    async def _learn_again(self) -> None:
        """Before each new connection: topics may have gone meanwhile, and would be asked for without end."""
        for role in list(self._learned_at):
            await self._learn(role)

    async def _connect_producer(self) -> AIOKafkaProducer:
        await self._learn_again()
        producer = AIOKafkaProducer(
            enable_idempotence=True,
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self._aio.common,
            **self._aio.producer,
        )
        await self._start(producer, partial(stop_producer, producer, 0))
        return producer

    async def _connect_consumer(self) -> AIOKafkaConsumer:
        await self._learn_again()
        fetching = {"fetch_max_wait_ms": FETCH_WAIT_MS, **self._aio.consumer}
        consumer = AIOKafkaConsumer(
            auto_offset_reset="none",
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            **self._aio.common,
            **fetching,
        )
        await self._start(consumer, partial(stop_consumer, consumer))
        return consumer

    async def _start(self, client: Any, stop: Callable[[], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                await start(client.start())
        except BaseException as error:
            await stop()
            if isinstance(error, KafkaError | TimeoutError):
                raise Unavailable(self._outage.describe("it cannot be reached")) from error
            raise

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this side of the log is closed")


def _not_set_aside(error: Exception) -> None:
    _logger.error("a task that cannot be read is not among the dead letters: %s", error)
