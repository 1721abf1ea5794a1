"""What a step is made of: inputs of workflow ids, and the turns, answers and chores that they lead to.

An :class:`Input` is a command, or something that the engine itself has to do for one workflow id. A
:class:`Draft` is a turn before it has a place in the log. :class:`Made` is a partition's share of a step.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from orchestrator.coordinator.dispatch import ActivityRef
from orchestrator.coordinator.outflow import Receipt
from orchestrator.coordinator.runs import Run
from orchestrator.engine.state import Changes, Deadline
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Cause, Marks, Turn
from orchestrator.protocol.tasks import ActivityTask, Reply
from orchestrator.protocol.values import ReplyTo
from orchestrator.store.summaries import Glance

NO_MARKS = Marks()


class DispatchOrder(msgspec.Struct, frozen=True):
    """Send waiting activities to workers: (activity id, worker, inbox) each."""

    wanted: tuple[tuple[int, str, int], ...]


class LoseWorker(msgspec.Struct, frozen=True):
    """A worker is gone: its attempts of this run have failed."""

    worker: str


class Resume(msgspec.Struct, frozen=True):
    """Look at the run again: its code may go on, or something is left to be settled."""


class RefusedDelivery(msgspec.Struct, frozen=True):
    """The log refused the record of a delivery for good: the attempt has failed."""

    task: ActivityTask
    error: str
    receipt: Receipt


Item = c.Command | Deadline | DispatchOrder | LoseWorker | Resume | RefusedDelivery


class Input(msgspec.Struct, frozen=True, gc=False):
    """Something that concerns one workflow id. ``offset`` is the command's, -1 for the engine's own."""

    item: Item
    offset: int = -1
    run_id: str = ""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A reply and the client it goes to."""

    reply_to: ReplyTo
    reply: Reply


class Draft(msgspec.Struct, eq=False, gc=False):
    """A turn before it has a place in the log, and everything that happens once it is committed."""

    run: Run
    turn: int
    first_event_id: int
    time_ms: int
    activation: Activation
    events: tuple[e.Event, ...]
    causes: tuple[Cause, ...]
    changes: Changes
    state: bytes | None
    is_open: bool
    answers: list[Answer]
    offsets: tuple[int, ...]
    settled: list[Receipt]
    glance: Glance | None
    """How the run looks after it, for a store that lists are read from."""


def turn_of(
    draft: Draft, *, epoch: int = 0, seq: int = 0, marks: Marks = NO_MARKS, sent_through: int = -1
) -> Turn:
    """A draft at its place in the log; without a place, as code is told of it before it has one."""
    state = draft.run.state
    return Turn(
        epoch=epoch,
        seq=seq,
        marks=marks,
        sent_through=sent_through,
        time_ms=draft.time_ms,
        workflow_id=state.workflow_id,
        run_id=state.run_id,
        turn=draft.turn,
        first_event_id=draft.first_event_id,
        activation=draft.activation,
        events=draft.events,
        causes=draft.causes,
        headers=state.headers,
    )


class Warned(NamedTuple):
    """What operators should know of a run."""

    message: str
    workflow_id: str
    run_id: str


class Made(msgspec.Struct):
    """What the inputs of one step led to, in one partition.

    ``covered`` are answers to release when the consumption of their commands is committed, ``live``
    those to release when everything in flight now is read back. ``waiting`` are activities that need a
    worker, ``replaying`` the ids whose replay goes on in the next step, ``settled`` refused deliveries that
    concern nobody any more, ``late`` the offsets of commands that only the step's last turn may cover,
    ``evicted`` how many runs had code that did not give way.
    """

    drafts: list[Draft] = []
    covered: list[Answer] = []
    live: list[Answer] = []
    waiting: list[tuple[ActivityRef, str, int, int]] = []
    waiters: list[tuple[str, c.AwaitResult]] = []
    replaying: list[str] = []
    settled: list[Receipt] = []
    late: list[int] = []
    evicted: int = 0
    warnings: list[Warned] = []
