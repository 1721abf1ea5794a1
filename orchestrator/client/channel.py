"""Asks the engine: sends commands and brings their answers, over one stream of replies.

Which command to repeat when is in ``requests``; this is the asyncio around it. Nothing is sent before
the stream is open, so no answer can come before it; after a stream is lost and another opened, everything
under way is sent again, since its answer may have gone by in between.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable
from functools import partial
from math import inf

from msgspec.structs import replace

from orchestrator.client.answers import rejection
from orchestrator.client.requests import Requests
from orchestrator.errors import LogError, Unavailable, UsageError
from orchestrator.log.aio import AioLog, ReplyStream
from orchestrator.protocol.commands import Command
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import ReplyTo

_log = logging.getLogger(__name__)

POLL_S = 10.0
"""How long one read of the stream waits for an answer."""

REOPEN_S = 0.5
"""Between attempts to open the stream of replies again."""


class Channel:
    """One client's way to the engine and back. Use it from one event loop."""

    def __init__(self, log: AioLog) -> None:
        self._log = log
        self._client_id = uuid.uuid4().hex
        self._requests = Requests()
        self._futures: dict[str, asyncio.Future[Reply]] = {}
        self.reply_to: ReplyTo | None = None
        """Where answers to this client go now; a command that says otherwise is corrected when it is sent."""
        self.seen: dict[int, int] = {}
        """How far of history, by partition, the answers to this client reach."""
        self._reader: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self._gone: Unavailable | None = None

    async def open(self) -> None:
        """Open the stream of replies now instead of with the first question.

        Raises:
            Unavailable: the log does not answer.
        """
        if self._reader is None:
            stream = await self._open_stream()
            self._reader = asyncio.create_task(self._read(stream), name="replies")

    async def ask(self, command: Command, timeout_s: float | None) -> Reply:
        """Send a command, repeat it as needed, and return its answer.

        Raises:
            CommandRejected: the engine refused the command; the subclass says why.
            RecordRefused: the log will never take the command.
            Unavailable: there was no answer in ``timeout_s`` (None waits for ever).
        """
        if self._closed:
            raise UsageError("this client is closed; make a new one")
        if self._gone is not None:
            raise self._gone
        loop = asyncio.get_running_loop()
        due_at = self._requests.add(command, loop.time(), timeout_s)
        future: asyncio.Future[Reply] = loop.create_future()
        self._futures[command.request_id] = future
        try:
            if self._reader is None:
                self._reader = loop.create_task(self._read(None), name="replies")
            self._send_all((command,))
            if self._alarm is None or due_at < self._alarm.when():
                self._set_alarm()
            reply = await future
        finally:
            self._requests.forget(command.request_id)
            del self._futures[command.request_id]
        error = rejection(reply)
        if error is not None:
            raise error
        if reply.partition >= 0:
            self.seen[reply.partition] = max(reply.offset, self.seen.get(reply.partition, 0))
        return reply

    def give_up(self, error: Unavailable) -> None:
        """Nothing will be answered any more: who asks, now or later, gets this error."""
        self._gone = error
        self._fail_all(error)

    async def close(self) -> None:
        """Ask nothing more. Who still waits for an answer gets ``Unavailable``."""
        self._closed = True
        self._fail_all(Unavailable("the client was closed before the answer came; the outcome is unknown"))
        if self._alarm is not None:
            self._alarm.cancel()
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.gather(self._reader, return_exceptions=True)

    # --- out ---

    def _send_all(self, commands: Iterable[Command]) -> None:
        reply_to = self.reply_to
        if reply_to is None:
            return  # everything under way is sent when the stream is open
        for command in commands:
            to_me = command if command.reply_to is reply_to else replace(command, reply_to=reply_to)
            self._log.post(to_me, partial(self._not_sent, command.request_id))

    def _not_sent(self, request_id: str, error: Exception) -> None:
        """A command was not acknowledged: it is repeated, unless that is of no use."""
        if isinstance(error, Unavailable):
            _log.debug("a command was not acknowledged: %s", error)
        else:
            self._fail(request_id, error)

    def _set_alarm(self) -> None:
        at = self._requests.next_at()
        if self._alarm is not None:
            if self._alarm.when() <= at:
                return
            self._alarm.cancel()
            self._alarm = None
        if at < inf:
            self._alarm = asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        repeat, expired = self._requests.due(asyncio.get_running_loop().time())
        self._send_all(repeat)
        for command in expired:
            about = f"{type(command).__name__} with request id {command.request_id!r}"
            self._fail(
                command.request_id,
                Unavailable(
                    f"no answer to {about} came in time; the outcome is unknown: "
                    "repeat the call with the same request_id, or look at the workflow"
                ),
            )
        self._set_alarm()

    # --- in ---

    async def _open_stream(self) -> ReplyStream:
        stream = await self._log.open_replies(self._client_id)
        self.reply_to = ReplyTo(partition=stream.partition, client_id=self._client_id)
        return stream

    async def _read(self, stream: ReplyStream | None) -> None:
        lost = False
        try:
            while True:
                try:
                    if stream is None:
                        stream = await self._open_stream()
                        self._send_all(self._requests.under_way())
                    for reply in await stream.next(POLL_S):
                        self._answer(reply)
                    lost = False
                except (Unavailable, LogError) as error:
                    level = logging.DEBUG if lost else logging.WARNING  # one warning per outage
                    _log.log(level, "the stream of replies is lost and opened again: %s", error)
                    self.reply_to, lost = None, True
                    if stream is not None:
                        await stream.close()
                        stream = None
                    await asyncio.sleep(REOPEN_S)
        except Exception as error:
            # Not a fault of the log: nothing more will be answered, so nobody may go on waiting.
            self._closed = True
            self._fail_all(error)
        finally:
            if stream is not None:
                await stream.close()

    def _answer(self, reply: Reply) -> None:
        if self._requests.forget(reply.request_id):
            future = self._futures[reply.request_id]
            if not future.done():
                future.set_result(reply)

    def _fail(self, request_id: str, error: Exception) -> None:
        self._requests.forget(request_id)
        future = self._futures.get(request_id)
        if future is not None and not future.done():
            future.set_exception(error)

    def _fail_all(self, error: Exception) -> None:
        for request_id in list(self._futures):
            self._fail(request_id, error)
