"""The log of an engine in another process, over HTTP: for clients and workers, and for what they read.

Commands that are sent at the same time travel together: while one batch is on its way, the next gathers.
Streams are long polls; a poll that is lost on the way is asked for again and brings the same messages.
What did not arrive is ``Unavailable``, and the callers repeat it.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from orchestrator.errors import LogError, OrchestratorError, Unavailable
from orchestrator.log import wire
from orchestrator.log.aio import BeatStream, Inbox, ReplyStream
from orchestrator.log.http_reads import HttpReads
from orchestrator.protocol.commands import Command
from orchestrator.protocol.tasks import WorkerBeat

if "sniffio" not in sys.modules and find_spec("sniffio") is None:
    # httpcore imports it four times per request, to learn that this is asyncio. Where it is not installed,
    # each time searches the disk for it in vain, a third of a request's cost; this makes it fail at once.
    sys.modules["sniffio"] = None  # type: ignore[assignment]

T = TypeVar("T")

ANSWER_TIMEOUT_S = 30.0
"""An engine that has not answered by then is taken for unreachable. Long polls get their wait on top."""

CONNECT_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 100
"""Kept open for reuse. A client needs two, a worker three, besides one for each read under way."""

KEEP_ALIVE_S = 30.0
"""How long an idle connection is kept: the engine keeps it longer."""

MAX_BATCH_BYTES = wire.MAX_BODY_BYTES // 2
"""Commands of one request, encoded; a single one may be larger, and is then refused by the engine."""


class _Parcel(NamedTuple):
    """A command under way."""

    data: bytes
    done: asyncio.Future[None]


class HttpLog(HttpReads):
    """Implements ``log.aio.AioLog`` and ``client.reads.AsyncReader`` for one event loop.

    Args:
        address: of the engine, such as ``http://127.0.0.1:7350``.
        transport: how requests travel, if not by the network.
    """

    def __init__(self, address: str, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.address = address.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=self.address + wire.PREFIX,
            transport=transport,
            timeout=httpx.Timeout(ANSWER_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_S
            ),
            trust_env=False,  # an engine on this machine is not reached by way of a proxy
        )
        super().__init__(self._ask)
        self._outbox: list[_Parcel] = []
        self._sender: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Release the connections; what was not acknowledged is ``Unavailable`` to its sender."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        _fail(self._outbox, Unavailable("the log was closed before it answered"))
        self._outbox.clear()
        await self._http.aclose()

    # --- sending ---

    async def send(self, command: Command) -> None:
        """Append a command; returns when it is durable.

        Raises:
            RecordRefused: the command is too large.
            Unavailable: the engine does not answer, or is too busy.
        """
        await self._enqueue(command)

    def post(self, command: Command, on_failed: Callable[[Exception], None]) -> None:
        """Append a command whose answer will tell that it is durable, see the port."""

        def tell(done: asyncio.Future[None]) -> None:
            error = None if done.cancelled() else done.exception()
            if isinstance(error, Exception):
                on_failed(error)

        try:
            self._enqueue(command).add_done_callback(tell)
        except Exception as error:  # it cannot be encoded
            on_failed(error)

    def _enqueue(self, command: Command) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        parcel = _Parcel(msgspec.json.encode(command), loop.create_future())
        self._outbox.append(parcel)
        if self._sender is None or self._sender.done():
            self._sender = loop.create_task(self._send_all(), name="commands")
        return parcel.done

    async def beat(self, beat: WorkerBeat) -> int:
        """Append a beat; returns its offset.

        Raises:
            Unavailable: the engine does not answer, or does not know this incarnation (any more).
        """
        path = f"/workers/{quote(beat.worker, safe='')}/beats"
        try:
            return (await self._ask("POST", path, wire.Appended, body=msgspec.json.encode(beat))).offset
        except LogError as error:
            # That the incarnation is over is for its inbox to say; a beat alone ends nothing.
            raise Unavailable(str(error)) from error

    async def _send_all(self) -> None:
        await asyncio.sleep(0)  # whoever is about to send in this turn of the loop comes along
        while self._outbox:
            batch = self._next_batch()
            try:
                body = b"[" + b",".join(parcel.data for parcel in batch) + b"]"
                sent = await self._ask("POST", "/commands", wire.Sent, body=body)
                if len(sent.problems) != len(batch):
                    raise Unavailable(f"{len(batch)} commands got {len(sent.problems)} answers")
            except OrchestratorError as error:
                _fail(batch, error)
            except BaseException:
                _fail(batch, Unavailable("the log was closed before it answered"))
                raise
            else:
                for parcel, problem in zip(batch, sent.problems, strict=True):
                    if not parcel.done.done():
                        if problem is None:
                            parcel.done.set_result(None)
                        else:
                            parcel.done.set_exception(wire.error_of(problem, 0))

    def _next_batch(self) -> list[_Parcel]:
        size = count = 0
        for parcel in self._outbox[: wire.MAX_BATCH_COMMANDS]:
            size += len(parcel.data) + 1
            if count and size > MAX_BATCH_BYTES:
                break
            count += 1
        batch, self._outbox = self._outbox[:count], self._outbox[count:]
        return batch

    # --- streams ---

    async def open_inbox(self, worker: str) -> Inbox:
        """Register a worker incarnation and read its tasks."""
        return await self._open(f"/workers/{quote(worker, safe='')}", "tasks", wire.Tasks)

    async def open_replies(self, client_id: str) -> ReplyStream:
        """Read the replies to a client."""
        return await self._open(f"/clients/{quote(client_id, safe='')}", "replies", wire.Replies)

    async def open_beats(self) -> BeatStream:
        """Read all beats."""
        return await self._open(f"/observers/{uuid.uuid4().hex}", "beats", wire.Beats)

    async def _open(self, place: str, messages: str, batch: type[wire.Batch]) -> _HttpStream:
        opened = await self._ask("PUT", place, wire.Opened)
        return _HttpStream(self, place, messages, opened, batch)

    # --- asking ---

    async def _ask(
        self,
        method: str,
        path: str,
        answer: type[T],
        params: dict[str, Any] | None = None,
        *,
        body: bytes | None = None,
        wait_s: float = 0.0,
    ) -> T:
        """One request and its decoded answer; errors as in the table of ``wire``."""
        timeout = httpx.Timeout(ANSWER_TIMEOUT_S + wait_s, connect=CONNECT_TIMEOUT_S)
        headers = None if body is None else {"content-type": "application/json"}
        try:
            response = await self._http.request(
                method, path, params=params, content=body, headers=headers, timeout=timeout
            )
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the client was closed meanwhile
            raise Unavailable(
                f"no answer from {self.address}: {str(error) or type(error).__name__}; "
                "is the engine running there?"
            ) from error
        try:
            if response.status_code >= 400:
                problem = msgspec.json.decode(response.content, type=wire.Problem)
                raise wire.error_of(problem, response.status_code)
            return msgspec.json.decode(response.content or b"null", type=answer)
        except msgspec.MsgspecError as error:
            raise Unavailable(
                f"{self.address}{wire.PREFIX}{path} answered {response.status_code} with something that is "
                f"not an engine's answer ({error}); check the address, and that both sides are of one version"
            ) from error


class _HttpStream:
    """A stream of the engine's, read by long polls. One task at a time may wait."""

    def __init__(
        self, log: HttpLog, place: str, messages: str, opened: wire.Opened, batch: type[wire.Batch]
    ) -> None:
        self.partition = opened.partition
        self.offset = opened.offset
        self._ask = log._ask
        self._place = place
        self._messages = f"{place}/{messages}"
        self._batch: Any = batch
        self._after = 0
        self._closed = False

    async def next(self, timeout_s: float) -> list[Any]:
        """The next messages; empty after ``timeout_s``.

        Raises:
            Unavailable: the engine does not answer; the stream goes on where it was.
            LogError: the engine does not know this stream any more; open another one.
        """
        if self._closed:
            raise Unavailable("this stream is closed; open another one")
        wait_s = min(timeout_s, wire.MAX_WAIT_S)
        params = {"after": self._after, "wait_s": wait_s}
        batch = await self._ask("GET", self._messages, self._batch, params, wait_s=wait_s)
        self._after, self.offset = batch.number, batch.offset
        return list(batch.messages)

    async def close(self) -> None:
        """Read no more. An engine that cannot be told forgets the stream by itself."""
        if self._closed:
            return
        self._closed = True
        with suppress(OrchestratorError):
            await self._ask("DELETE", self._place, type(None))


def _fail(parcels: list[_Parcel], error: Exception) -> None:
    for parcel in parcels:
        if not parcel.done.done():
            parcel.done.set_exception(error)
