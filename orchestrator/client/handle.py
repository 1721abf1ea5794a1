"""A handle on one workflow: its result, signals, queries, cancellation, and what is known of it."""

# ruff: noqa: ASYNC109 (a timeout here is how long a command is repeated, which the caller cannot do)

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar, TypeVarTuple, overload

from msgspec.structs import replace

from orchestrator.client.answers import query_result, workflow_result
from orchestrator.client.channel import Channel
from orchestrator.client.names import handler_called
from orchestrator.client.reads import AsyncReader
from orchestrator.codec.payloads import PayloadConverter
from orchestrator.errors import UsageError
from orchestrator.protocol.bookmarks import bookmark_text
from orchestrator.protocol.commands import (
    AwaitResult,
    CancelWorkflow,
    Command,
    QueryWorkflow,
    SignalWorkflow,
    TerminateWorkflow,
)
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.texts import check_text
from orchestrator.protocol.views import RunDescription
from orchestrator.telemetry.traces import Traces

ANSWER_TIMEOUT_S = 30.0
"""How long a call waits for the engine before it raises ``Unavailable``."""

R = TypeVar("R")
A = TypeVar("A")
Ts = TypeVarTuple("Ts")


class Session(NamedTuple):
    """What a client and its handles share."""

    channel: Channel
    converter: PayloadConverter
    identity: str
    chosen_reader: AsyncReader | None
    request_ids: Iterator[str]
    traces: Traces

    @property
    def reader(self) -> AsyncReader:
        """Where lists and histories are read; raises UsageError if the client has none.

        What this client was told is done is there: each read waits for it.
        """
        if self.chosen_reader is None:
            raise UsageError(
                "this client cannot read lists and histories; give it a reader: Client(log, reader=...)"
            )
        seen = self.channel.seen
        return self.chosen_reader.after(bookmark_text(seen)) if seen else self.chosen_reader

    def common(self, request_id: str | None) -> dict[str, Any]:
        """The fields that all commands carry.

        Raises:
            UsageError: the request id is no text.
        """
        given = "" if request_id is None else check_text(request_id, "request_id")
        return {
            "request_id": given or next(self.request_ids),
            "identity": self.identity,
            "reply_to": self.channel.reply_to,
        }

    async def ask(self, command: Command, timeout_s: float | None) -> Reply:
        """The engine's answer to a command; see :meth:`Channel.ask`."""
        with self.traces.call(command) as call:
            if call.headers:
                command = replace(command, headers=call.headers)
            reply = await self.channel.ask(command, timeout_s)
            call.answered(reply.run_id)
        return reply


def request_ids() -> Iterator[str]:
    """Ids that no other client uses, and no other process."""
    client = uuid.uuid4().hex
    return (f"{client}-{number}" for number in itertools.count(1))


def bookmark_of(reply: Reply) -> str:
    """Where an answer stands on history; "" if it does not say."""
    return bookmark_text({reply.partition: reply.offset}) if reply.partition >= 0 else ""


class WorkflowHandle(Generic[R]):
    """One workflow id, and the run meant if ``run_id`` is not "". ``R`` is the type of its result.

    Every method that asks the engine may raise ``Unavailable``: no answer came within ``timeout``
    seconds, and whether the engine did it is unknown. Calling again with the same ``request_id`` does
    it once at most. A refusal is a :class:`~orchestrator.errors.CommandRejected`.
    """

    def __init__(
        self, session: Session, id: str, run_id: str = "", result_hint: Any = None, *, bookmark: str = ""
    ) -> None:
        self._session = session
        self.id = id
        self.run_id = run_id
        self.bookmark = bookmark
        """Where the last answer to this handle stands on history, for reads elsewhere that are to show it."""
        self._result_hint = result_hint

    def __repr__(self) -> str:
        return f"WorkflowHandle(id={self.id!r}, run_id={self.run_id!r})"

    async def result(self, timeout: float | None = None) -> R:
        """Wait until the run is closed, for ever by default, and return its result.

        Raises:
            WorkflowFailure: it failed, timed out, or was cancelled or terminated; ``cause`` says why.
            WorkflowNotFound: there is no such workflow.
            Unavailable: it is still open, or the engine did not answer, after ``timeout`` seconds.
        """
        return self.result_of(await self.closed(timeout))

    async def closed(self, timeout: float | None = None) -> Reply:
        """Wait until the run is closed, for ever by default, and return how: its status, with what there is
        of a result, a failure and tags, as they were written.

        Raises:
            WorkflowNotFound: there is no such workflow.
            Unavailable: it is still open, or the engine did not answer, after ``timeout`` seconds.
        """
        command = AwaitResult(workflow_id=self.id, run_id=self.run_id, **self._session.common(None))
        return await self._ask(command, timeout)

    def result_of(self, reply: Reply) -> R:
        """The result that an answer of the engine holds.

        Raises:
            WorkflowFailure: the run did not complete.
        """
        result: R = workflow_result(reply, self.id, self._session.converter, self._result_hint)
        return result

    @overload
    async def signal(
        self,
        signal: Callable[[Any, *Ts], Any],
        *args: *Ts,
        request_id: str | None = None,
        timeout: float | None = ANSWER_TIMEOUT_S,
    ) -> None: ...
    @overload
    async def signal(
        self,
        signal: str,
        *args: object,
        request_id: str | None = None,
        timeout: float | None = ANSWER_TIMEOUT_S,
    ) -> None: ...
    async def signal(
        self,
        signal: Callable[..., Any] | str,
        *args: object,
        request_id: str | None = None,
        timeout: float | None = ANSWER_TIMEOUT_S,
    ) -> None:
        """Send a signal; returns when it is durable. ``signal``: a ``@workflow.signal`` method, or a name.

        Raises:
            WorkflowNotFound: there is no such workflow.
            WorkflowClosed: it is closed.
            PayloadError: an argument cannot be sent.
        """
        command = SignalWorkflow(
            workflow_id=self.id,
            run_id=self.run_id,
            signal_name=handler_called("signal", signal, len(args)).name,
            input=self._session.converter.to_payloads(args),
            **self._session.common(request_id),
        )
        await self._ask(command, timeout)

    @overload
    async def query(
        self, query: Callable[[Any, *Ts], A], *args: *Ts, timeout: float | None = ANSWER_TIMEOUT_S
    ) -> A: ...
    @overload
    async def query(
        self,
        query: str,
        *args: object,
        result_type: Any = None,
        timeout: float | None = ANSWER_TIMEOUT_S,
    ) -> Any: ...
    async def query(
        self,
        query: Callable[..., Any] | str,
        *args: object,
        result_type: Any = None,
        timeout: float | None = ANSWER_TIMEOUT_S,
    ) -> Any:
        """Ask the workflow something. ``query``: a ``@workflow.query`` method, or a name.

        The answer holds all that this client was told is done. ``__stack`` tells where the code waits.

        Raises:
            QueryFailed: the handler raised, or the run is blocked.
            UnknownName: the workflow has no such query.
            WorkflowNotFound: there is no such workflow.
        """
        called = handler_called("query", query, len(args))
        command = QueryWorkflow(
            workflow_id=self.id,
            run_id=self.run_id,
            query_name=called.name,
            input=self._session.converter.to_payloads(args),
            **self._session.common(None),
        )
        reply = await self._ask(command, timeout)
        hint = result_type if result_type is not None else called.result_hint
        return query_result(reply, called.name, self._session.converter, hint)

    async def cancel(
        self,
        reason: str = "",
        *,
        request_id: str | None = None,
        timeout: float | None = ANSWER_TIMEOUT_S,
    ) -> None:
        """Ask the workflow to cancel itself; its code may clean up first. Returns when that is durable."""
        command = CancelWorkflow(
            workflow_id=self.id,
            run_id=self.run_id,
            reason=check_text(reason, "reason"),
            **self._session.common(request_id),
        )
        await self._ask(command, timeout)

    async def terminate(
        self,
        reason: str = "",
        *details: Any,
        request_id: str | None = None,
        timeout: float | None = ANSWER_TIMEOUT_S,
    ) -> None:
        """Close the workflow at once; its code hears nothing of it. Returns when that is durable."""
        command = TerminateWorkflow(
            workflow_id=self.id,
            run_id=self.run_id,
            reason=check_text(reason, "reason"),
            details=self._session.converter.to_payloads(details),
            **self._session.common(request_id),
        )
        await self._ask(command, timeout)

    async def _ask(self, command: Command, timeout: float | None) -> Reply:
        reply = await self._session.ask(command, timeout)
        self.bookmark = bookmark_of(reply)
        return reply

    async def describe(self) -> RunDescription:
        """What is known of the run but its history.

        Raises:
            WorkflowNotFound: there is no such workflow.
            UsageError: this client has no reader.
        """
        return await self._session.reader.describe(self.id, self.run_id)
