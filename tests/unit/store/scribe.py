"""Writes histories of one partition by chance, and knows what counts in them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from orchestrator.codec import avro
from orchestrator.engine import decider
from orchestrator.engine.state import ActivityPhase, Changes, RunState
from orchestrator.protocol import events as e
from orchestrator.protocol.records import (
    Activation,
    Cause,
    Claim,
    HistoryRecord,
    Marks,
    Position,
    Turn,
    history_key,
)
from orchestrator.protocol.values import Failure, FailureKind

START_MS = 1_700_000_000_000


class Written(NamedTuple):
    """A record as it stands on the log."""

    offset: int
    key: bytes
    value: bytes | None


class Scribe:
    """``alive`` are the turns of each run that counts, in order; nothing else is to be in a store."""

    def __init__(self, seed: int, *, ids: Sequence[str] = tuple("abcdefg"), runs: str = "") -> None:
        """Workflow ids are drawn from ``ids``; the ids of runs begin with ``runs``."""
        self.rng = Random(seed)
        self._ids, self._run_prefix = ids, runs
        self.log: list[Written] = []
        self.alive: dict[str, list[Turn]] = {}
        self.latest: dict[str, str] = {}
        self.epoch = self.seq = self.runs = self.commands = 0
        self._keys: dict[str, list[bytes]] = {}
        self._voids: list[bytes] = []
        self._live: set[bytes] = set()
        self.claim()

    def write(self, steps: int) -> Scribe:
        """Let so many things happen."""
        moves = (
            [self.turn] * 12 + [self.claim, self.late, self.repeated, self.position, self.clean_void]
            + [self.broken_off, self.retention, self.retention]
        )  # fmt: skip
        for _ in range(steps):
            self.rng.choice(moves)()
        return self

    # --- what happens ---

    def claim(self) -> None:
        self.epoch, self.seq = self.epoch + self.rng.randint(1, 2), 0
        self.put(Claim(epoch=self.epoch, nonce=f"n{self.epoch}", owner="o", generation=1, time_ms=0))

    def turn(self) -> None:
        """A turn that counts, of a new or an open run, in up to three parts."""
        turn = self._next()
        keys = [self.put(part) for part in self._parts(turn)]
        self._keys.setdefault(turn.run_id, []).extend(keys)
        self._live.update(keys)
        self._count(turn)

    def broken_off(self) -> None:
        """The next claim comes before the last part."""
        parts = self._parts(self._next(), 3)
        cut = self.rng.randint(1, 2)
        keys = [self.put(part) for part in parts[:cut]]
        self.claim()
        self._voids += keys + [self.put(part) for part in parts[cut:]]

    def late(self) -> None:
        """A former owner's turn lands."""
        turn = self._next()
        self._voids.append(
            self.put(Turn(**{**_fields(turn), "epoch": self.rng.randint(0, self.epoch - 1), "seq": 999}))
        )

    def repeated(self) -> None:
        """A position whose seq was there already."""
        if self.seq:
            self._voids.append(self.put(self._position(self.rng.randint(1, self.seq), 10**6)))

    def position(self) -> None:
        self.seq += 1
        self.put(self._position(self.seq, self.commands))

    def clean_void(self) -> None:
        """The next owner clears up: never a key that a record which counts has too."""
        while self._voids:
            key = self._voids.pop()
            if key not in self._live:
                self.erase(key)
                return

    def retention(self) -> None:
        """The tombstones of a closed run, its first turn first; the last ones may stay out."""
        closed = [turns for turns in self.alive.values() if isinstance(turns[-1].events[-1], e.CLOSES)]
        if not closed:
            return
        turns = self.rng.choice(closed)
        run_id, workflow_id = turns[0].run_id, turns[0].workflow_id
        keys = self._keys.pop(run_id)
        for key in keys[: self.rng.randint(1, len(keys))]:
            self.erase(key)
        del self.alive[run_id]
        if self.latest.get(workflow_id) == run_id:
            del self.latest[workflow_id]

    # --- writing ---

    def put(self, record: HistoryRecord) -> bytes:
        """Append a record; returns its key."""
        key = history_key(record)
        self._land(key, avro.encode(record))
        return key

    def erase(self, key: bytes) -> None:
        """Append a tombstone."""
        self._land(key, None)

    def _land(self, key: bytes, value: bytes | None) -> None:
        offset = self.log[-1].offset + 1 if self.log else 0
        self.log.append(
            Written(offset + (self.rng.randint(1, 3) if self.rng.random() < 0.1 else 0), key, value)
        )

    def _position(self, seq: int, commands: int) -> Position:
        marks = Marks(commands=commands)
        return Position(epoch=self.epoch, seq=seq, marks=marks, sent_through=-1, time_ms=0)

    def _next(self) -> Turn:
        """A turn that could come next. It takes no place in history yet."""
        opened = [turns for turns in self.alive.values() if not isinstance(turns[-1].events[-1], e.CLOSES)]
        if not opened or self.rng.random() < 0.2:
            run_id = self._run_prefix + f"{self.runs + 1:032x}"[len(self._run_prefix) :]
            workflow_id = self._ids[self.runs % len(self._ids)]
            return self.made(run_id, workflow_id, [], (_STARTED, self._event(1)))
        turns = self.rng.choice(opened)
        blocked = _state(turns).blocked is not None
        events = [self._event(turns[-1].turn + 1) for _ in range(0 if blocked else self.rng.randint(1, 3))]
        if blocked or self.rng.random() < 0.4:
            events += self._trouble(turns)
        if self.rng.random() < 0.2:
            turned = any(isinstance(event, e.WorkflowBlocked | e.WorkflowUnblocked) for event in events)
            events.append(e.WorkflowTerminated() if blocked is not turned else self._close())
        return self.made(turns[0].run_id, turns[0].workflow_id, turns, tuple(events))

    def _event(self, number: int) -> e.Event:
        return self.rng.choice([
            e.WorkflowSignaled(signal_name=f"s{number}"),
            e.ActivityScheduled(
                activity_id=self.rng.getrandbits(30), activity_type="a", task_queue="q", start_to_close_ms=5
            ),
            e.TimerStarted(timer_id=self.rng.getrandbits(30), fire_time_ms=START_MS + number),
        ])  # fmt: skip

    def _trouble(self, turns: list[Turn]) -> list[e.Event]:
        """An open activity is tried and fails, or goes to a worker; or the run is blocked, or no more so."""
        state = _state(turns)
        waiting = [one for one in state.activities.values() if one.phase is not ActivityPhase.DISPATCHED]
        if not waiting or self.rng.random() < 0.3:
            failure = self._failure()
            return [
                e.WorkflowUnblocked() if state.blocked else e.WorkflowBlocked(reason="bug", failure=failure)
            ]
        found = self.rng.choice(waiting)
        dispatch = e.Dispatch(
            activity_id=found.activity_id,
            scheduled_event_id=found.scheduled_event_id,
            attempt=found.attempt,
            dispatch=found.dispatch + 1,
            worker="w",
            inbox=0,
        )
        failed = e.ActivityAttemptFailed(
            activity_id=found.activity_id,
            attempt=found.attempt,
            failure=self._failure(),
            retry_time_ms=START_MS + len(self.log),
        )
        sent = e.ActivitiesDispatched(dispatches=(dispatch,))
        return [sent, failed] if self.rng.random() < 0.7 else [sent]

    def _close(self) -> e.Event:
        how = self.rng.random()
        if how < 0.6:
            return e.WorkflowCompleted()
        return e.WorkflowFailed(failure=self._failure()) if how < 0.8 else e.WorkflowTerminated()

    def _failure(self) -> Failure:
        what = self.rng.choice(["sanctions hit", "gateway", "disk full"])
        return Failure(kind=FailureKind.APPLICATION, message=f"{what} {self.rng.randint(1, 99)}")

    def made(self, run_id: str, workflow_id: str, turns: list[Turn], events: tuple[e.Event, ...]) -> Turn:
        """The turn of a run that follows ``turns``."""
        last = turns[-1] if turns else None
        return Turn(
            epoch=self.epoch,
            seq=self.seq,
            marks=Marks(commands=max(0, self.commands - self.rng.randint(0, 3))),
            sent_through=-1,
            time_ms=START_MS + len(self.log),
            workflow_id=workflow_id,
            run_id=run_id,
            turn=last.turn + 1 if last else 1,
            first_event_id=last.first_event_id + len(last.events) if last else 1,
            activation=Activation.DONE,
            events=events,
            causes=(
                Cause(source="commands", offset=self.commands, request_id=f"r{self.commands}", kind="K"),
            ),
        )

    def _parts(self, turn: Turn, count: int = 0) -> list[Turn]:
        """The turn in parts, each with its place under the present claim."""
        count = count or self.rng.choice([1, 1, 1, 2, 3])
        records = []
        for part in range(count):
            self.seq += 1
            last = part == count - 1
            events = turn.events[part : len(turn.events) if last else part + 1]
            records.append(
                Turn(**{
                    **_fields(turn), "seq": self.seq, "part": part, "parts": count if last else 0,
                    "events": events, "causes": turn.causes if last else (),
                    "first_event_id": turn.first_event_id + min(part, len(turn.events)),
                })
            )  # fmt: skip
        return records

    def _count(self, turn: Turn) -> None:
        if turn.turn == 1:
            self.runs += 1
            self.latest[turn.workflow_id] = turn.run_id
        self.alive.setdefault(turn.run_id, []).append(turn)
        self.commands += 1

    # --- what is to come of it ---

    def states(self) -> dict[str, RunState]:
        """The state of each run that counts."""
        return {run_id: _state(turns) for run_id, turns in self.alive.items()}


_STARTED = e.WorkflowStarted(workflow_type="Order", run_timeout_ms=60_000)


def _state(turns: Sequence[Turn]) -> RunState:
    state: RunState | None = None
    for turn in turns:
        state = decider.evolve(state, turn, Changes())
    assert state is not None
    return state


def _fields(turn: Turn) -> dict[str, object]:
    return {name: getattr(turn, name) for name in turn.__struct_fields__}
