"""Random lives of a run: the fold is the state, accounts balance, nothing survives the close."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.codec import avro
from orchestrator.engine import activity, decider, execution, outbox, translate
from orchestrator.engine.state import ActivityPhase, Changes, Deadline, DeadlineKind, RunState
from orchestrator.protocol import actions as a
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.values import CancellationType, Failure, FailureKind, RetryPolicy
from orchestrator.store.rows import encode_state

START_MS = 1_700_000_000_000
RUN_ID = f"{START_MS:012x}{1:020x}"
_decode_state = msgspec.msgpack.Decoder(RunState).decode

Move = tuple[str, int, int]
"""What happens, and two numbers that say to whom and how."""

FAILURES = [
    Failure(kind=FailureKind.APPLICATION, message="m", type="A"),
    Failure(kind=FailureKind.APPLICATION, message="m", non_retryable=True),
    Failure(kind=FailureKind.APPLICATION, message="m", next_retry_delay_ms=7),
    Failure(kind=FailureKind.CANCELED, message="m"),
]
REPORTS = [c.CompleteActivity, c.FailActivity, c.ReportActivityCanceled, c.ReturnActivity]
LIMITS_MS = [None, 1, 500, 3_000, 60_000]


class Life:
    """One run, live; each move makes at most one turn, after which everything is checked."""

    def __init__(self, run_timeout_ms: int | None) -> None:
        self.now_ms = START_MS
        started = e.WorkflowStarted(workflow_type="Order", run_timeout_ms=run_timeout_ms)
        self.state = execution.new_run("wf", RUN_ID, started, START_MS)
        self.folded: RunState | None = None
        self.turns: list[Turn] = []
        self.deadlines: Counter[Deadline] = Counter()
        self.slots: Counter[tuple[str, int]] = Counter()
        self.waiting: set[int] = set()
        self.last_activity = self.last_timer = 0
        self.turn(started, activation=Activation.DONE)

    # --- one turn ---

    def turn(self, *events: e.Event, activation: Activation = Activation.NONE) -> None:
        if not events:
            return
        first, changes = self.state.next_event_id, Changes()
        decider.evolve_events(self.state, events, self.now_ms, changes)
        decider.end_turn(self.state, activation)
        made = Turn(
            epoch=1,
            seq=len(self.turns) + 1,
            marks=Marks(),
            sent_through=-1,
            time_ms=self.now_ms,
            workflow_id="wf",
            run_id=RUN_ID,
            turn=self.state.turn,
            first_event_id=first,
            activation=activation,
            events=events,
        )
        decoded = avro.decode(avro.encode(made))
        assert decoded == made
        self.turns.append(decoded)
        self.account(changes)
        self.check(made)

    def account(self, changes: Changes) -> None:
        self.deadlines.update(changes.deadlines_set)
        self.deadlines.subtract(changes.deadlines_cleared)
        self.slots.update(changes.taken)
        self.slots.subtract(changes.freed)
        self.waiting |= set(changes.waiting)
        self.waiting -= {number for _, number in changes.taken} | set(changes.gone)

    def check(self, made: Turn) -> None:
        self.folded = decider.evolve(self.folded, self.turns[-1], Changes())
        assert self.folded == self.state
        assert _decode_state(encode_state(self.state)) == self.state
        assert +self.deadlines == Counter(self.standing())
        assert Counter(execution.deadlines_of(self.state)) == Counter(self.standing())
        assert min(self.deadlines.values(), default=0) >= 0
        with_workers = [(found.worker, found.activity_id) for found in self.opens(ActivityPhase.DISPATCHED)]
        assert +self.slots == Counter(with_workers)
        assert min(self.slots.values(), default=0) >= 0
        assert self.waiting >= {found.activity_id for found in self.opens(ActivityPhase.WAITING)}
        assert outbox.outgoing(made, "Order", self.live) == outbox.outgoing(made, "Order", self.stored)
        assert bool(outbox.outgoing(made, "Order", self.stored)) is outbox.has_outgoing(made)
        if not self.state.is_open:
            assert not (self.state.activities)
            assert not (self.state.timers)
            assert not (self.waiting)
            assert not (+self.deadlines)
            assert not (+self.slots)

    def standing(self) -> list[Deadline]:
        """All deadlines, from the state alone."""
        if not self.state.is_open:
            return []
        found = [due for one in self.state.activities.values() for due in activity.deadlines_of(one)]
        found += [Deadline(at, DeadlineKind.TIMER, number) for number, at in self.state.timers.items()]
        if self.state.run_deadline_ms:
            found.append(Deadline(self.state.run_deadline_ms, DeadlineKind.RUN_TIMEOUT, 0))
        return found

    def opens(self, *phases: ActivityPhase) -> list[activity.ActivityState]:
        return [found for found in self.state.activities.values() if found.phase in phases]

    def live(self, event_id: int) -> tuple[e.ActivityScheduled, int]:
        """As a partition finds what was scheduled: in the state, else in the store."""
        for found in self.state.activities.values():
            if found.scheduled_event_id == event_id:
                return found.scheduled, found.scheduled_time_ms
        return self.stored(event_id)

    def stored(self, event_id: int) -> tuple[e.ActivityScheduled, int]:
        for turn in self.turns:
            if 0 <= event_id - turn.first_event_id < len(turn.events):
                event = turn.events[event_id - turn.first_event_id]
                assert isinstance(event, e.ActivityScheduled)
                return event, turn.time_ms
        raise LookupError(event_id)

    # --- moves ---

    def act(self, action: a.Action, offer: tuple[str, int] | None = None) -> None:
        """The code asks for something."""
        events = translate.translate(self.state, action, self.now_ms, lambda _: offer)
        self.turn(*events, activation=Activation.DONE)

    def schedule(self, who: int, how: int) -> None:
        self.last_activity += 1
        action = a.ScheduleActivity(
            activity_id=self.last_activity,
            activity_type="pay",
            task_queue="q",
            schedule_to_close_ms=LIMITS_MS[who % 5],
            schedule_to_start_ms=LIMITS_MS[how % 5],
            start_to_close_ms=LIMITS_MS[(who + how) % 5],
            retry_policy=RetryPolicy(
                maximum_attempts=how % 4, non_retryable_error_types=("A",) if how % 7 == 0 else ()
            ),
            cancellation_type=list(CancellationType)[who % 3],
        )
        self.act(action, (f"w{how % 2}", how % 3) if how % 2 else None)

    def cancel_activity(self, who: int, how: int) -> None:
        asked = [n for n, found in self.state.activities.items() if not found.cancel_requested]
        if asked:
            self.act(a.RequestCancelActivity(activity_id=asked[who % len(asked)]))

    def settle(self, who: int, how: int) -> None:
        self.turn(*activity.decide_settle(self.state), activation=Activation.DEFERRED)

    def start_timer(self, who: int, how: int) -> None:
        self.last_timer += 1
        self.act(a.StartTimer(timer_id=self.last_timer, delay_ms=how))

    def cancel_timer(self, who: int, how: int) -> None:
        if self.state.timers:
            self.act(a.CancelTimer(timer_id=sorted(self.state.timers)[who % len(self.state.timers)]))

    def report(self, who: int, how: int) -> None:
        """Now and then on a delivery that is not open."""
        if not self.state.activities:
            return
        found = list(self.state.activities.values())[who % len(self.state.activities)]
        kind = REPORTS[how % 4]
        fields = {"failure": FAILURES[how % len(FAILURES)]} if kind is c.FailActivity else {}
        stale = how % 11 == 0
        command = kind(
            workflow_id="wf",
            run_id=RUN_ID,
            activity_id=found.activity_id,
            attempt=found.attempt,
            dispatch=found.dispatch - stale,
            worker=found.worker,
            **fields,  # type: ignore[arg-type]
        )
        decided = decider.decide(self.state, command, self.now_ms)
        assert isinstance(decided, tuple)
        assert not (decided and (stale or found.phase is not ActivityPhase.DISPATCHED))
        self.turn(*decided)
        assert decider.decide(self.state, command, self.now_ms) == ()

    def lose_worker(self, who: int, how: int) -> None:
        self.turn(*activity.decide_worker_lost(self.state, f"w{who % 2}", self.now_ms))
        assert not any(found.worker == f"w{who % 2}" for found in self.opens(ActivityPhase.DISPATCHED))

    def dispatch(self, who: int, how: int) -> None:
        ready = [
            found.activity_id
            for found in self.opens(ActivityPhase.WAITING, ActivityPhase.BACKOFF)
            if found.retry_time_ms <= self.now_ms
        ]
        wanted = tuple((number, f"w{who % 2}", who % 3) for number in ready[: how % 4])
        self.turn(*activity.decide_dispatch(self.state, wanted))

    def pass_time(self, who: int, how: int) -> None:
        """To the next deadline, which comes; or a little."""
        due = sorted(self.standing())
        if not due or who % 4 == 0:
            self.now_ms += how
            return
        self.now_ms = max(self.now_ms, due[0].at_ms)
        self.turn(*decider.decide_deadline(self.state, due[0], self.now_ms))
        if due[0].kind is not DeadlineKind.RETRY:
            assert decider.decide_deadline(self.state, due[0], self.now_ms) == ()
        else:
            self.dispatch(who, 3)

    def command(self, who: int, how: int) -> None:
        command: c.Command = [
            c.SignalWorkflow(workflow_id="wf", signal_name="s"),
            c.SignalWorkflow(workflow_id="wf", signal_name="t"),
            c.CancelWorkflow(workflow_id="wf"),
            c.SignalWorkflow(workflow_id="wf", signal_name="u", run_id="another"),
        ][how % 4]
        decided = decider.decide(self.state, command, self.now_ms)
        if isinstance(decided, tuple):
            self.turn(*decided, activation=list(Activation)[who % 3])

    def block(self, who: int, how: int) -> None:
        if self.state.blocked is None or how % 2:
            self.turn(e.WorkflowBlocked(reason="r", failure=FAILURES[who % 4]))
        else:
            self.turn(e.WorkflowUnblocked(), activation=Activation.DONE)

    def close(self, who: int, how: int) -> None:
        if how % 5:
            return  # most lives are longer
        if self.state.blocked is not None or who % 4 == 3:
            command = c.TerminateWorkflow(workflow_id="wf")
            decided = decider.decide(self.state, command, self.now_ms)
            assert isinstance(decided, tuple)
            self.turn(*decided)
            return
        self.act([a.CompleteWorkflow(), a.FailWorkflow(failure=FAILURES[0]), a.AcceptCancel()][who % 3])


MOVES: dict[str, Callable[[Life, int, int], None]] = {
    "schedule": Life.schedule,
    "report": Life.report,
    "dispatch": Life.dispatch,
    "pass time": Life.pass_time,
    "cancel activity": Life.cancel_activity,
    "settle": Life.settle,
    "start timer": Life.start_timer,
    "cancel timer": Life.cancel_timer,
    "lose worker": Life.lose_worker,
    "command": Life.command,
    "block": Life.block,
    "close": Life.close,
}
FREQUENT = ("schedule", "report", "dispatch", "pass time")
NUMBERS = st.integers(0, 5_000)
moves = st.lists(
    st.tuples(st.sampled_from([*MOVES, *FREQUENT, *FREQUENT]), NUMBERS, NUMBERS), min_size=10, max_size=80
)


@settings(max_examples=150, deadline=None)
@given(moves=moves, run_timeout_ms=st.sampled_from([None, 5_000, 100_000]))
def test_a_random_life(moves: list[Move], run_timeout_ms: int | None) -> None:
    life = Life(run_timeout_ms)
    for kind, who, how in moves:
        if life.state.is_open:
            MOVES[kind](life, who, how)
    if life.state.is_open:
        decided = decider.decide(life.state, c.TerminateWorkflow(workflow_id="wf"), life.now_ms)
        assert isinstance(decided, tuple)
        life.turn(*decided)
    assert not (+life.deadlines)
    assert not (+life.slots)
    ids = [turn.first_event_id + place for turn in life.turns for place in range(len(turn.events))]
    assert ids == list(range(1, len(ids) + 1))
    told = {d.activity_id for turn in life.turns for event in turn.events for d in _abandoned(event)}
    assert told <= set(range(1, life.last_activity + 1))


def _abandoned(event: e.Event) -> tuple[e.Dispatch, ...]:
    return event.dispatches if isinstance(event, e.ActivitiesAbandoned) else ()


def test_the_moves_come_to_every_row_of_every_table() -> None:
    """Otherwise the property says little. Plain chance, one seed: no search needed."""
    rng = Random(5)
    seen: set[type] = set()
    for _ in range(400):
        life = Life(rng.choice([None, 5_000]))
        for _ in range(40):
            if life.state.is_open:
                kind = rng.choice([*MOVES, *FREQUENT])
                MOVES[kind](life, rng.randrange(5_000), rng.randrange(5_000))
        seen |= {type(event) for turn in life.turns for event in turn.events}
    assert set(decider.EVOLVE) <= seen
