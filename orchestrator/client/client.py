"""The client: starts workflows, and finds those that run.

::

    client = await Client.connect("http://127.0.0.1:7350")
    handle = await client.start_workflow(Order.run, "o-17", 4200, id="order-17")
    await handle.signal(Order.approve)
    print(await handle.result())
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from copy import copy
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple, Unpack, overload

from orchestrator.client.channel import Channel
from orchestrator.client.handle import ANSWER_TIMEOUT_S, Session, WorkflowHandle, bookmark_of, request_ids
from orchestrator.client.names import workflow_called
from orchestrator.client.reads import AsyncReader
from orchestrator.client.starts import StartOptions, command_fields
from orchestrator.codec.payloads import DEFAULT, PayloadConverter
from orchestrator.codec.query import conjunction
from orchestrator.errors import ConfigError, Unavailable
from orchestrator.log.aio import AioLog
from orchestrator.log.connect import connect
from orchestrator.protocol.commands import StartWorkflow
from orchestrator.protocol.ids import check_workflow_id
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import (
    STUCK_ATTEMPTS,
    STUCK_WAITING_MS,
    FailureGroups,
    History,
    MinuteCounts,
    RunCounts,
    RunRow,
    StuckRun,
)
from orchestrator.telemetry.tracing import find_traces
from orchestrator.workflow.durations import Duration, to_ms

HISTORY_PAGE_TURNS = 1_000
"""Turns that one read of a history asks for."""

R = TypeVar("R")
Ts = TypeVarTuple("Ts")


class Client:
    """Starts, finds and reads workflows. Use it from one event loop.

    Args:
        log: the log's asyncio side; it stays the caller's to close.
        reader: where lists, descriptions and histories are read; default the log, if it can answer them.
        identity: who asks, for histories; default ``pid@host``.
        converter: how arguments and results are encoded.
    """

    def __init__(
        self,
        log: AioLog,
        *,
        reader: AsyncReader | None = None,
        identity: str | None = None,
        converter: PayloadConverter = DEFAULT,
    ) -> None:
        self._owned: tuple[AioLog, ...] = ()
        if reader is None and isinstance(log, AsyncReader):
            reader = log
        self.identity = identity or f"{os.getpid()}@{socket.gethostname()}"
        self._session = Session(Channel(log), converter, self.identity, reader, request_ids(), find_traces())

    @classmethod
    async def connect(
        cls,
        address: str,
        *,
        namespace: str = "",
        kafka_config: Path | str | None = None,
        view: str = "",
        identity: str | None = None,
        converter: PayloadConverter = DEFAULT,
    ) -> Self:
        """A client of what is at an address: ``http://127.0.0.1:7350`` or ``kafka://127.0.0.1:9092``.

        Args:
            address: an engine or a view over HTTP, or Kafka's brokers (more: separated by commas).
            namespace: on Kafka: which one; default ``$ORCHESTRATOR_NAMESPACE``, or else "default".
            kafka_config: on Kafka: a file with settings of its client, ``name=value`` in librdkafka's names.
            view: on Kafka: the address of a view, where lists, descriptions and histories are read;
                without one only those cannot be had.
            identity: who asks, for histories; default ``pid@host``.
            converter: how arguments and results are encoded.

        Raises:
            ConfigError: an address or a setting is not understood.
            Unavailable: nothing answers there.
        """
        log = connect(address, namespace=namespace, config_file=kafka_config)
        seen = connect(view) if view else log
        if view and not isinstance(seen, AsyncReader):
            raise ConfigError(f"the view's address is {view!r}; expected one like 'http://127.0.0.1:7350'")
        reader = seen if isinstance(seen, AsyncReader) else None
        client = cls(log, reader=reader, identity=identity, converter=converter)
        client._owned = (log, seen) if view else (log,)
        try:
            await client._session.channel.open()
        except BaseException:
            await client.close()
            raise
        return client

    def known_as(self, identity: str) -> Self:
        """This client, for commands of somebody else: histories say ``identity``. Close this one alone."""
        other = copy(self)
        other.identity, other._owned = identity, ()
        other._session = self._session._replace(identity=identity)
        return other

    def give_up(self, error: Unavailable) -> None:
        """The engine is gone for good: all calls under way and all later ones raise this error."""
        self._session.channel.give_up(error)

    async def close(self) -> None:
        """Ask nothing more; calls under way end with ``Unavailable``."""
        await self._session.channel.close()
        for log in self._owned:
            await log.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @overload
    async def start_workflow(
        self,
        workflow: Callable[[Any, *Ts], Coroutine[Any, Any, R]],
        *args: *Ts,
        **options: Unpack[StartOptions],
    ) -> WorkflowHandle[R]: ...
    @overload
    async def start_workflow(
        self, workflow: type | str, *args: object, **options: Unpack[StartOptions]
    ) -> WorkflowHandle[Any]: ...
    async def start_workflow(
        self, workflow: Callable[..., Any] | type | str, *args: object, **options: Unpack[StartOptions]
    ) -> WorkflowHandle[Any]:
        """Start a workflow; returns when its start is durable. For the options see :class:`StartOptions`.

        Args:
            workflow: its ``@workflow.run`` method, its class, or the name of its type.
            args: the arguments of ``run``.
            options: how it is started; ``id`` is required.

        Raises:
            WorkflowAlreadyStarted: the id is in use, or its reuse policy forbids another run.
            UnknownName: no coordinator knows this type of workflow.
            UsageError: the id or an option cannot be (``PayloadError``: an argument cannot be sent).
            Unavailable: no answer came in time; whether it started is unknown.
        """
        handle, _ = await self._start(workflow, args, options, await_result=False)
        return handle

    async def _start(
        self,
        workflow: Callable[..., Any] | type | str,
        args: tuple[object, ...],
        options: StartOptions,
        *,
        await_result: bool,
    ) -> tuple[WorkflowHandle[Any], Reply]:
        session = self._session
        fields = command_fields(options)
        called = workflow_called(workflow, len(args))
        memo = options.get("memo") or {}
        payloads = session.converter.to_payloads((*args, *memo.values()))  # one limit for all together
        command = StartWorkflow(
            workflow_type=called.name,
            input=payloads[: len(args)],
            memo=dict(zip(memo, payloads[len(args) :], strict=True)),
            await_result=await_result,
            **fields,
            **session.common(options.get("request_id")),
        )
        reply = await session.ask(command, options.get("timeout", ANSWER_TIMEOUT_S))
        handle: WorkflowHandle[Any] = WorkflowHandle(
            session, command.workflow_id, reply.run_id, called.result_hint, bookmark=bookmark_of(reply)
        )
        return handle, reply

    @overload
    async def execute_workflow(
        self,
        workflow: Callable[[Any, *Ts], Coroutine[Any, Any, R]],
        *args: *Ts,
        **options: Unpack[StartOptions],
    ) -> R: ...
    @overload
    async def execute_workflow(
        self, workflow: type | str, *args: object, **options: Unpack[StartOptions]
    ) -> Any: ...
    async def execute_workflow(
        self, workflow: Callable[..., Any] | type | str, *args: object, **options: Unpack[StartOptions]
    ) -> Any:
        """Start a workflow and wait for its result, for ever; ``timeout`` is for the start alone.

        Raises:
            WorkflowFailure: it did not complete; and what :meth:`start_workflow` raises.
        """
        handle, reply = await self._start(workflow, args, options, await_result=True)
        return handle.result_of(reply) if reply.status else await handle.result()

    @overload
    def get_workflow_handle(
        self, id: str, run_id: str | None = None, result_type: None = None
    ) -> WorkflowHandle[Any]: ...
    @overload
    def get_workflow_handle(
        self, id: str, run_id: str | None = None, *, result_type: type[R]
    ) -> WorkflowHandle[R]: ...
    def get_workflow_handle(
        self, id: str, run_id: str | None = None, result_type: type[Any] | None = None
    ) -> WorkflowHandle[Any]:
        """A handle on a workflow that may exist; without ``run_id`` on its current (or else last) run.

        ``result_type`` is what its result is decoded as; plain JSON types if it is not given.
        """
        return WorkflowHandle(self._session, check_workflow_id(id), run_id or "", result_type)

    async def list_workflows(
        self,
        query: str = "",
        *,
        status: WorkflowStatus | None = None,
        workflow_type: str = "",
        id_prefix: str = "",
        limit: int | None = None,
    ) -> AsyncIterator[RunRow]:
        """The runs that match a query and all given filters, newest start first, at most ``limit``.

        A query is text such as ``'WorkflowType = "Order" AND StartTime > "2026-01-01"'``.

        Raises:
            UsageError: the query is none, or this client has no reader.
        """
        wanted = conjunction(query, status=status, workflow_type=workflow_type, id_prefix=id_prefix)
        left, page = limit, ""
        while left is None or left > 0:
            asked = 100 if left is None else min(left, 100)
            found = await self._session.reader.list_runs(wanted, limit=asked, page=page)
            for row in found.rows:
                yield row
            if not found.next_page:
                return
            page = found.next_page
            left = None if left is None else left - len(found.rows)

    async def count_workflows(self, query: str = "") -> RunCounts:
        """How many runs match a query, by status and type.

        Raises:
            UsageError: the query is none, or this client has no reader.
        """
        return await self._session.reader.count_runs(query)

    async def count_by_minute(self) -> MinuteCounts:
        """How many runs started and closed in each minute of the last 24 hours.

        Raises:
            UsageError: this client has no reader.
        """
        return await self._session.reader.minutes()

    async def list_failures(self, *, limit: int = 100) -> FailureGroups:
        """Failures that are alike, those of most runs first.

        Raises:
            UsageError: this client has no reader.
        """
        return await self._session.reader.failures(limit=limit)

    async def list_stuck(
        self, *, attempts: int = STUCK_ATTEMPTS, waiting: Duration = timedelta(milliseconds=STUCK_WAITING_MS)
    ) -> AsyncIterator[StuckRun]:
        """Blocked runs, and activities that do not get on.

        Args:
            attempts: those at their so many-th attempt or later.
            waiting: those that had no worker for so long; those in a queue without workers always are.

        Raises:
            UsageError: this client has no reader.
        """
        waiting_ms, page = to_ms(waiting, "waiting"), ""
        while True:
            found = await self._session.reader.stuck(attempts=attempts, waiting_ms=waiting_ms, page=page)
            for row in found.rows:
                yield row
            if not found.next_page:
                return
            page = found.next_page

    async def history(self, id: str, run_id: str | None = None) -> History:
        """All turns of one run, as they were committed.

        Raises:
            WorkflowNotFound: there is no such workflow.
            UsageError: this client has no reader.
        """
        reader = self._session.reader
        whole = page = await reader.history(id, run_id or "", limit=HISTORY_PAGE_TURNS)
        while len(page.turns) == HISTORY_PAGE_TURNS:
            page = await reader.history(
                id, whole.run_id, after_turn=page.turns[-1].turn, limit=HISTORY_PAGE_TURNS
            )
            whole = whole.then(page)
        return whole
