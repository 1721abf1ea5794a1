"""What the roles tell of clients' calls, runs and attempts, so that somebody can make spans of it.

Where nobody does, what others wrote is handed on: a role without spans tears no trace apart.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import Protocol, Self

from orchestrator.engine.state import RunState
from orchestrator.protocol.commands import Command, StartWorkflow
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.protocol.traces import NO_TRACE, trace_context

INCOMING: ContextVar[dict[str, str]] = ContextVar("incoming trace", default=NO_TRACE)
"""The trace context of the HTTP request that is being answered: what it asks of the engine belongs there."""


class Call(Protocol):
    """A command of a client, from its first sending to its answer; a context manager."""

    headers: dict[str, str]
    """What the command carries."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def answered(self, run_id: str) -> None:
        """The engine has said yes, for this run."""


class Attempt(Protocol):
    """An attempt of an activity, as long as it runs; a context manager, around the user's code."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def reported(self, report: Command | None) -> None:
        """How it ended; None if nobody waits for a report any more."""


class Traces(Protocol):
    """Is told what happens, at little cost, and never fails. For any thread."""

    def call(self, command: Command) -> Call:
        """A client sends a command."""

    def run_headers(self, command: StartWorkflow, run_id: str) -> dict[str, str]:
        """The headers of the turns of a run that this command starts."""

    def run_closed(self, state: RunState) -> None:
        """A run is closed, and this is committed."""

    def attempt(self, task: ActivityTask) -> Attempt:
        """A worker runs an attempt."""


class _Untold:
    """Implements :class:`Call` and :class:`Attempt` for nobody."""

    def __init__(self, headers: dict[str, str] = NO_TRACE) -> None:
        self.headers = headers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing."""

    def answered(self, run_id: str) -> None:
        """Nothing."""

    def reported(self, report: Command | None) -> None:
        """Nothing."""


_UNTOLD = _Untold()


class Untraced:
    """Nobody makes spans here. What others wrote is handed on."""

    def call(self, command: Command) -> Call:
        """The command goes on with the trace of the request that it answers, if there is one."""
        incoming = INCOMING.get()
        return _Untold(incoming) if incoming else _UNTOLD

    def run_headers(self, command: StartWorkflow, run_id: str) -> dict[str, str]:
        """What the command carries: attempts become children of whoever sent it."""
        return trace_context(command.headers)

    def run_closed(self, state: RunState) -> None:
        """Nothing."""

    def attempt(self, task: ActivityTask) -> Attempt:
        """Nothing."""
        return _UNTOLD
