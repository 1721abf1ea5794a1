"""The rows that a turn leaves in a partition's store, and those that go with a run. No I/O."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from orchestrator.engine import execution
from orchestrator.engine.state import Changes, RunState
from orchestrator.protocol.commands import Rejection
from orchestrator.protocol.records import Turn
from orchestrator.store import keys


class Row(msgspec.Struct, frozen=True, gc=False):
    """A put, or a delete if ``value`` is None."""

    key: bytes
    value: bytes | None


class Request(msgspec.Struct, frozen=True, array_like=True):
    """What became of a request id: the turn that its command led to."""

    run_id: str
    turn: int
    kind: str


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """A refused request: repeats are refused likewise until then."""

    expires_ms: int
    rejection: Rejection


class FailureRow(msgspec.Struct, array_like=True, gc=False):
    """The runs of a partition that are in a failure group now, and what they have in common."""

    runs: int
    first_time_ms: int
    last_time_ms: int
    workflow_type: str
    activity_type: str
    failure_type: str
    message: str


class MinuteRow(msgspec.Struct, array_like=True, gc=False):
    """How many runs started, completed, and closed in another way than that, in one minute."""

    started: int = 0
    completed: int = 0
    failed: int = 0


_encode = msgspec.msgpack.Encoder().encode


def encode_state(state: RunState) -> bytes:
    """A run's state as its row holds it. Taken when a turn is made: the state goes on changing."""
    return _encode(state)


def encode_refusal(refusal: Refusal) -> bytes:
    """The value of a row of ``keys.refusal``."""
    return _encode(refusal)


def rows_of(turn: Turn, changes: Changes, *, state: bytes | None, is_open: bool) -> list[Row]:
    """The rows that a turn changes. ``state`` is the run's after it, None if its row may lag behind.

    A run's first and last turn need their state.
    """
    run_id, workflow_id = turn.run_id, turn.workflow_id
    rows = [Row(keys.turn(run_id, turn.turn), _encode(turn))]
    if turn.turn == 1:
        rows += (
            Row(keys.latest(workflow_id), run_id.encode()),
            Row(keys.open_run(run_id), b""),
        )
    if not is_open:
        rows.append(Row(keys.open_run(run_id), None))
    if state is not None:
        rows.append(Row(keys.state(run_id), state))
    for cause in turn.causes:
        if cause.request_id:
            request = Request(run_id, turn.turn, cause.kind)
            rows.append(Row(keys.request(workflow_id, cause.request_id), _encode(request)))
    for due in changes.deadlines_set:
        rows.append(Row(keys.deadline(run_id, due), workflow_id.encode()))
    for due in changes.deadlines_cleared:
        rows.append(Row(keys.deadline(run_id, due), None))
    return rows


def snapshot_due(state: RunState, snapshot_event: int) -> bool:
    """Whether the state's row is to be written with the turn that was just made.

    It may lag behind the state, from ``snapshot_event`` on, by as many events as there are open things, so
    that a fan-out costs no more per event than a single activity; the first and the last turn need it.
    """
    open_things = len(state.activities) + len(state.timers)
    return not state.is_open or state.turn == 1 or state.next_event_id - snapshot_event >= open_things


def row_of_offset(turn: Turn, offset: int) -> Row:
    """The row of where a turn's last record stands in history: for people, who look it up there."""
    return Row(keys.offset_of_turn(turn.run_id, turn.turn), keys.pack_offset(offset))


def row_of_close(state: RunState, offset: int) -> Row:
    """The row of a run that was closed by the turn at ``offset``."""
    return Row(keys.close(state.close_time_ms, state.run_id), keys.pack_offset(offset))


def rows_of_erased(state: RunState, turns: Iterable[Turn], *, latest: bool) -> list[Row]:
    """The rows to delete so that nothing of a run is left: its state, all its ``turns``, its requests.

    ``latest`` says whether it is its id's latest run; then the id becomes one that was never used.
    """
    run_id, workflow_id = state.run_id, state.workflow_id
    gone = [keys.state(run_id), keys.open_run(run_id), keys.close(state.close_time_ms, run_id)]
    if latest:
        gone.append(keys.latest(workflow_id))
    gone += [keys.deadline(run_id, due) for due in execution.deadlines_of(state)]
    for turn in turns:
        gone.append(keys.turn(run_id, turn.turn))
        gone += [keys.request(workflow_id, cause.request_id) for cause in turn.causes if cause.request_id]
    return [Row(key, None) for key in gone]


def unpublished_row(offset: int, run_id: str, turn: int, workflow_type: str) -> Row:
    """The row of a turn with business events, that came back at an offset of history."""
    return Row(keys.unpublished(offset), _encode((run_id, turn, workflow_type)))
