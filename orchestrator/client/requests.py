"""Requests under way: when to repeat each, when to give it up, which answer is whose.

Rules only: no I/O and no clock; ``now`` is any clock in seconds that never goes back. An answer may be
lost at any point, so a command is repeated, with the same request id, until it is answered or its time
is over; the engine gives it one effect however often it comes.
"""

from __future__ import annotations

import heapq
from math import inf
from typing import NamedTuple

import msgspec

from orchestrator.errors import UsageError
from orchestrator.protocol.commands import AwaitResult, Command

FIRST_REPEAT_S = 3.0
"""After how long without an answer a command is repeated first. Answers are seldom lost, but an engine
under load may take a second: repeating sooner would add to the load just then."""

REPEAT_FACTOR = 2.0
MOST_REPEAT_S = 10.0
"""Repeats grow apart up to this, so that many waiting clients do not keep a slow engine slow."""

MOST_AWAIT_REPEAT_S = 15.0
"""Of :class:`AwaitResult`, which a coordinator keeps for 20 s: repeated sooner, it is never let go."""


class Due(NamedTuple):
    """What a moment asks for."""

    repeat: list[Command]
    expired: list[Command]


class _Pending(msgspec.Struct):
    command: Command
    deadline: float
    repeat_at: float
    delay_s: float = FIRST_REPEAT_S

    @property
    def next_at(self) -> float:
        return min(self.repeat_at, self.deadline)


class Requests:
    """The commands of one client that wait for an answer, by request id."""

    def __init__(self) -> None:
        self._pending: dict[str, _Pending] = {}
        # Entries of requests that are gone, or were put off, are skipped when they come up.
        self._agenda: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, command: Command, now: float, timeout_s: float | None) -> float:
        """A command is being sent; None waits for ever. Returns when it is due next, see :meth:`next_at`.

        Raises:
            UsageError: a request with its id is under way already.
        """
        if command.request_id in self._pending:
            raise UsageError(f"a request with the id {command.request_id!r} is under way; await that one")
        deadline = inf if timeout_s is None else now + timeout_s
        self._pending[command.request_id] = pending = _Pending(command, deadline, now + FIRST_REPEAT_S)
        due_at = pending.next_at
        heapq.heappush(self._agenda, (due_at, command.request_id))
        return due_at

    def forget(self, request_id: str) -> bool:
        """A request is answered or given up. False if it was not under way: the answer is a repeat."""
        return self._pending.pop(request_id, None) is not None

    def next_at(self) -> float:
        """When :meth:`due` has something to say next; infinite if never."""
        while self._agenda:
            at, request_id = self._agenda[0]
            pending = self._pending.get(request_id)
            if pending is not None and pending.next_at == at:
                return at
            heapq.heappop(self._agenda)
        return inf

    def due(self, now: float) -> Due:
        """What to repeat and what to give up now; what is given up is forgotten."""
        due = Due([], [])
        while self.next_at() <= now:
            _, request_id = heapq.heappop(self._agenda)
            pending = self._pending[request_id]
            if pending.deadline <= now:
                del self._pending[request_id]
                due.expired.append(pending.command)
                continue
            due.repeat.append(pending.command)
            most_s = MOST_AWAIT_REPEAT_S if isinstance(pending.command, AwaitResult) else MOST_REPEAT_S
            pending.delay_s = min(pending.delay_s * REPEAT_FACTOR, most_s)
            pending.repeat_at = now + pending.delay_s
            heapq.heappush(self._agenda, (pending.next_at, request_id))
        return due

    def under_way(self) -> list[Command]:
        """All commands that wait for an answer; repeat them after answers may have been missed."""
        return [pending.command for pending in self._pending.values()]
