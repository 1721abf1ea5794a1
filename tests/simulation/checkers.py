"""What must hold, whatever happened. Checkers read the log alone, never what an engine says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from orchestrator.codec import avro
from orchestrator.coordinator.runs import Replay, make_instance
from orchestrator.engine import decider, outbox
from orchestrator.engine.state import Changes, RunState
from orchestrator.engine.validity import Validity
from orchestrator.log.port import Record
from orchestrator.log.topics import HISTORY
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Claim, Turn
from tests.simulation.nodes import DEFINITIONS


class Violation(AssertionError):
    """An invariant does not hold."""


class Facts(NamedTuple):
    """What history says: the valid turns of each partition, in order, and all runs."""

    turns: dict[int, list[Turn]]
    states: dict[str, RunState]
    runs: dict[str, list[Turn]]
    void: int
    claims: int


def read(histories: dict[int, list[Record]]) -> Facts:
    """Fold what counts; raises ``Violation`` if it cannot be folded."""
    facts = Facts({}, {}, {}, 0, 0)
    void = claims = 0
    for partition, records in histories.items():
        validity, parts = Validity(), []
        turns = facts.turns.setdefault(partition, [])
        for record in records:
            if record.value is None:
                continue
            decoded = avro.decode(record.value, HISTORY)
            if not validity.judge(decoded):
                continue
            if isinstance(decoded, Claim):
                parts, claims = [], claims + 1
            elif isinstance(decoded, Turn):
                parts = [*parts, decoded] if decoded.part else [decoded]
                if decoded.parts and len(parts) == decoded.parts:
                    turns.append(_join(parts))
        void += validity.void_records
        open_runs: dict[str, str] = {}
        for turn in turns:
            _fold(facts, turn, open_runs)
    return facts._replace(void=void, claims=claims)


def _join(parts: list[Turn]) -> Turn:
    events = tuple(event for part in parts for event in part.events)
    last = parts[-1]
    return Turn(**{
        **{name: getattr(last, name) for name in last.__struct_fields__},
        "events": events,
        "first_event_id": parts[0].first_event_id,
    })  # fmt: skip


def _fold(facts: Facts, turn: Turn, open_runs: dict[str, str]) -> None:
    """I1: event ids without gap, each turn possible. I2: one open run per id."""
    before = facts.states.get(turn.run_id)
    if before is None:
        other = open_runs.get(turn.workflow_id)
        _demand(other is None, f"{turn.workflow_id} has two open runs: {other} and {turn.run_id}")
        open_runs[turn.workflow_id] = turn.run_id
    try:
        state = decider.evolve(before, turn, Changes())
    except (ValueError, KeyError) as error:
        raise Violation(f"turn {turn.turn} of {turn.run_id} is impossible: {error!r}") from error
    facts.states[turn.run_id] = state
    facts.runs.setdefault(turn.run_id, []).append(turn)
    if not state.is_open:
        open_runs.pop(turn.workflow_id, None)


def one_effect_per_request(facts: Facts) -> None:
    """I3: no request id has two effects."""
    seen = Counter(
        (turn.workflow_id, cause.request_id)
        for turns in facts.turns.values()
        for turn in turns
        for cause in turn.causes
        if cause.request_id
    )
    twice = [key for key, count in seen.items() if count > 1]
    _demand(not twice, f"requests with two effects: {twice[:3]}")


def no_command_twice(facts: Facts) -> None:
    """No record of ``commands`` is decided twice."""
    for partition, turns in facts.turns.items():
        seen = Counter(cause.offset for turn in turns for cause in turn.causes if cause.kind != "WorkerLost")
        twice = [offset for offset, count in seen.items() if count > 1]
        _demand(not twice, f"partition {partition}: commands decided twice: {twice[:3]}")


def no_signal_twice(facts: Facts, sent: dict[str, int]) -> None:
    """A workflow id had at most as many signals as it was sent; ``sent`` says how many that were."""
    had = Counter(
        turn.workflow_id
        for turns in facts.turns.values()
        for turn in turns
        for event in turn.events
        if isinstance(event, e.WorkflowSignaled)
    )
    more = [(workflow_id, count) for workflow_id, count in had.items() if count > sent[workflow_id]]
    _demand(not more, f"signals that nobody sent: {more[:3]}")


def marks_cover(facts: Facts) -> None:
    """A mark never passes a command that a later turn decides."""
    for partition, turns in facts.turns.items():
        low = 0
        for turn in turns:
            early = [cause.offset for cause in turn.causes if cause.offset < low]
            _demand(not early, f"partition {partition}: {early} were below the mark {low} already")
            low = max(low, turn.marks.commands)


def timers_are_not_early(facts: Facts) -> None:
    """I7: a timer fires once, and not before its time."""
    for run_id, turns in facts.runs.items():
        due: dict[int, int] = {}
        for turn in turns:
            for event in turn.events:
                if isinstance(event, e.TimerStarted):
                    due[event.timer_id] = event.fire_time_ms
                elif isinstance(event, e.TimerFired):
                    _demand(turn.time_ms >= due.pop(event.timer_id), f"{run_id}: a timer fired early")


def dispatched(facts: Facts) -> set[tuple[str, int, int, int, str]]:
    """The deliveries that committed turns made: run, activity, attempt, dispatch and worker."""
    found = set()
    for run_id, turns in facts.runs.items():
        for turn in turns:
            for event in turn.events:
                if isinstance(event, e.ActivityScheduled) and event.worker:
                    found.add((run_id, event.activity_id, 1, 1, event.worker))
                elif isinstance(event, e.ActivitiesDispatched):
                    found.update(
                        (run_id, d.activity_id, d.attempt, d.dispatch, d.worker) for d in event.dispatches
                    )
    return found


def attempts_started_once(facts: Facts, ledger: Iterable[tuple[str, int, int, int, str]]) -> None:
    """I6: what ran was dispatched by a committed turn, to that worker, and was started once."""
    started = Counter(ledger)
    twice = [key for key, count in started.items() if count > 1]
    _demand(not twice, f"attempts started twice: {twice[:3]}")
    attempts = Counter(key[:3] for key in started)
    again = [key for key, count in attempts.items() if count > 1]
    _demand(not again, f"the same attempt ran on two deliveries: {again[:3]}")
    known = dispatched(facts)
    ghosts = [key for key in started if key not in known]
    _demand(not ghosts, f"attempts ran that no committed turn dispatched: {ghosts[:3]}")


def published_once(facts: Facts, topics: dict[str, list[Record]]) -> None:
    """I13: each event of a valid turn is on its topic exactly once, in order per run, and nothing else is."""
    expected: dict[tuple[str, bytes], list[bytes]] = {}
    for run_id, turns in facts.runs.items():
        for turn in turns:
            for out in outbox.publications(turn, facts.states[run_id].workflow_type):
                expected.setdefault((out.topic, run_id.encode()), []).append(out.headers["event-id"])
    found: dict[tuple[str, bytes], list[bytes]] = {}
    for topic, records in topics.items():
        for record in records:
            found.setdefault((topic, record.headers["run-id"]), []).append(record.headers["event-id"])
    for key in expected.keys() | found.keys():
        wanted, there = expected.get(key, []), found.get(key, [])
        _demand(wanted == there, f"published to {key[0]} by {key[1]!r}: {there}, expected {wanted}")


def replays(facts: Facts) -> None:
    """I9: today's code, told the same facts, does the same, at every prefix."""
    for run_id, turns in facts.runs.items():
        replay = Replay(
            lambda started, turn: make_instance(
                DEFINITIONS["Interpreter"],
                started,
                workflow_id=turn.workflow_id,
                run_id=turn.run_id,
                start_time_ms=turn.time_ms,
            )
        )
        try:
            replay.advance(turns, lambda: False)
        except Exception as error:
            raise Violation(f"{run_id} does not replay: {error}") from error
        finally:
            if replay.instance is not None:
                replay.instance.close()


def store_is_fold(facts: Facts, states: Iterable[tuple[str, RunState | None]]) -> None:
    """I8: what a coordinator's store holds is the fold of history."""
    for run_id, state in states:
        _demand(state == facts.states.get(run_id), f"the store differs for {run_id}")


def everything_closed(facts: Facts) -> None:
    """I12: when nothing goes wrong any more, everything ends."""
    still = [(s.workflow_id, run_id, s.status.value) for run_id, s in facts.states.items() if s.is_open]
    _demand(not still, f"{len(still)} runs are still open: {still[:3]}")


def _demand(holds: bool, words: str) -> None:
    if not holds:
        raise Violation(words)


CHECKERS = (
    one_effect_per_request,
    no_command_twice,
    marks_cover,
    timers_are_not_early,
    replays,
)
"""Those that need history alone."""
