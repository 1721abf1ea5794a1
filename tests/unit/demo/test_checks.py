from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from orchestrator.demo import checks
from orchestrator.demo.checks import CHECKS, EXPECTED, UNDOES
from orchestrator.demo.evidence import Evidence, completed
from orchestrator.demo.inputs import merchants, orders
from orchestrator.protocol.events import ActivityScheduled, Event, TimerStarted, WorkflowFailed
from orchestrator.protocol.views import History
from tests.unit.demo.conftest import cut, with_turns


def test_a_real_run_passes_every_check(evidence: Evidence) -> None:
    for check in CHECKS:
        assert list(check.problems(evidence)) == [], check.claim


def test_the_table_speaks_of_every_line_of_the_input() -> None:
    assert set(EXPECTED) == {line.id for line in [*merchants(), *orders()]}


def test_where_others_go_on_the_scene_is_judged_by_the_time_of_the_kill(evidence: Evidence) -> None:
    went_on = replace(evidence, before=evidence.after)
    assert list(checks.killed_at_work(went_on)) == []
    assert list(checks.killed_at_work(replace(went_on, killed_ms=evidence.killed_ms + 60_000))) != []


# --- each check can fail: the evidence is spoiled, and these checks, and no others, say so ---


def change(history: History, spoil: Callable[[Event], Event]) -> History:
    return with_turns(
        history,
        [msgspec.structs.replace(turn, events=tuple(map(spoil, turn.events))) for turn in history.turns],
    )


def in_run(evidence: Evidence, workflow_id: str, spoil: Callable[[Event], Event]) -> Evidence:
    """Both before and after the kill."""
    after = evidence.after | {workflow_id: change(evidence.after[workflow_id], spoil)}
    before = evidence.before | {workflow_id: change(evidence.before[workflow_id], spoil)}
    return replace(evidence, after=after, before=before)


def a_run_is_unknown(evidence: Evidence) -> Evidence:
    return replace(evidence, after={k: v for k, v in evidence.after.items() if k != "m-7731"})


def a_run_is_still_open(evidence: Evidence) -> Evidence:
    history = evidence.after["m-7731"]
    return replace(evidence, after=evidence.after | {"m-7731": cut(history, len(history.turns) - 1)})


def a_run_failed_for_another_reason(evidence: Evidence) -> Evidence:
    def spoil(event: Event) -> Event:
        if not isinstance(event, WorkflowFailed):
            return event
        other = msgspec.structs.replace(event.failure, message="out of luck", cause=None)
        return msgspec.structs.replace(event, failure=other)

    return in_run(evidence, "m-9001-BAD", spoil)


def a_tag_is_missing(evidence: Evidence) -> Evidence:
    def spoil(event: Event) -> Event:
        return msgspec.structs.replace(event, tags=()) if isinstance(event, WorkflowFailed) else event

    return in_run(evidence, "m-7733", spoil)


def nothing_was_retried(evidence: Evidence) -> Evidence:
    return replace(
        evidence,
        after=evidence.after | {"m-7732": evidence.after["m-7731"]},
        before=evidence.before | {"m-7732": evidence.before["m-7731"]},
    )


def the_kill_came_too_early(evidence: Evidence) -> Evidence:
    first_turns = {name: cut(history, 1) for name, history in evidence.before.items()}
    return replace(evidence, before=first_turns)


def the_kill_came_too_late(evidence: Evidence) -> Evidence:
    return replace(evidence, before=evidence.after, killed_ms=evidence.killed_ms + 60_000)


def a_history_was_forgotten(evidence: Evidence) -> Evidence:
    other = msgspec.structs.replace(evidence.after["m-7731"], run_id="f" * 32)
    return replace(evidence, after=evidence.after | {"m-7731": other})


def a_history_was_changed(evidence: Evidence) -> Evidence:
    def spoil(event: Event) -> Event:
        return msgspec.structs.replace(event, fire_time_ms=1) if isinstance(event, TimerStarted) else event

    return replace(evidence, after=evidence.after | {"m-7731": change(evidence.after["m-7731"], spoil)})


def a_completed_activity_ran_again(evidence: Evidence) -> Evidence:
    history = evidence.before["m-7731"]
    key = f"{history.run_id}/{completed(history)[0].activity_id}"
    first = next(execution for execution in evidence.executions if execution.key == key)
    again = msgspec.structs.replace(first, attempt=2)
    return replace(evidence, executions=[*evidence.executions, again])


def an_attempt_ran_twice(evidence: Evidence) -> Evidence:
    last = evidence.executions[-1]
    return replace(evidence, executions=[*evidence.executions, last])


def an_activity_never_ran(evidence: Evidence) -> Evidence:
    history = evidence.after["o-1001"]
    key = f"{history.run_id}/{completed(history)[0].activity_id}"
    left = [execution for execution in evidence.executions if execution.key != key]
    return replace(evidence, executions=left, ran_before=evidence.ran_before - 1)


def a_turn_is_missing(evidence: Evidence) -> Evidence:
    turns = evidence.after["o-1001"].turns
    short = with_turns(evidence.after["o-1001"], [*turns[:-2], turns[-1]])
    return replace(evidence, after=evidence.after | {"o-1001": short})


def without_event(evidence: Evidence, workflow_id: str, place: int) -> Evidence:
    """Both before and after the kill, the first turn lacks an event."""

    def spoil(history: History) -> History:
        first, *others = history.turns
        events = first.events[:place] + first.events[place + 1 :]
        return with_turns(history, [msgspec.structs.replace(first, events=events), *others])

    return replace(
        evidence,
        after=evidence.after | {workflow_id: spoil(evidence.after[workflow_id])},
        before=evidence.before | {workflow_id: spoil(evidence.before[workflow_id])},
    )


def an_event_is_missing(evidence: Evidence) -> Evidence:
    return without_event(evidence, "m-7732", 1)


def a_schedule_is_missing(evidence: Evidence) -> Evidence:
    return without_event(evidence, "o-1003", 1)


def compensations_ran_in_the_order_of_the_steps(evidence: Evidence) -> Evidence:
    names = iter(reversed(EXPECTED["m-9001-BAD"].undone))

    def spoil(event: Event) -> Event:
        if isinstance(event, ActivityScheduled) and event.activity_type in UNDOES:
            return msgspec.structs.replace(event, activity_type=next(names))
        return event

    after = change(evidence.after["m-9001-BAD"], spoil)
    names = iter(reversed(EXPECTED["m-9001-BAD"].undone))
    before = change(evidence.before["m-9001-BAD"], spoil)
    return replace(
        evidence,
        after=evidence.after | {"m-9001-BAD": after},
        before=evidence.before | {"m-9001-BAD": before},
    )


def the_ledger_has_compensations_in_another_order(evidence: Evidence) -> Evidence:
    run_id = evidence.after["m-7733"].run_id
    undone = [e for e in evidence.executions if e.run_id == run_id and e.activity in UNDOES]
    turned = dict(zip(undone, reversed(undone), strict=True))
    return replace(evidence, executions=[turned.get(e, e) for e in evidence.executions])


def a_key_had_two_effects(evidence: Evidence) -> Evidence:
    return replace(evidence, effects=[*evidence.effects, evidence.effects[0]])


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (a_run_is_unknown, {checks.outcomes, checks.nothing_lost}),
        (a_run_is_still_open, {checks.outcomes}),
        (a_run_failed_for_another_reason, {checks.outcomes}),
        (a_tag_is_missing, {checks.outcomes}),
        (nothing_was_retried, {checks.outcomes}),
        (the_kill_came_too_early, {checks.killed_at_work}),
        (the_kill_came_too_late, {checks.killed_at_work, checks.nothing_ran_again}),
        (a_history_was_forgotten, {checks.nothing_lost, checks.attempts_are_true}),
        (a_history_was_changed, {checks.nothing_lost}),
        (a_completed_activity_ran_again, {checks.nothing_ran_again}),
        (an_attempt_ran_twice, {checks.attempts_are_true}),
        (an_activity_never_ran, {checks.attempts_are_true}),
        (a_turn_is_missing, {checks.no_gaps, checks.nothing_lost}),
        (an_event_is_missing, {checks.no_gaps}),
        (a_schedule_is_missing, {checks.no_gaps, checks.undone_in_reverse}),
        (compensations_ran_in_the_order_of_the_steps, {checks.undone_in_reverse}),
        (the_ledger_has_compensations_in_another_order, {checks.undone_in_reverse}),
        (a_key_had_two_effects, {checks.one_effect_per_key}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_check_finds(
    evidence: Evidence,
    spoil: Callable[[Evidence], Evidence],
    found: set[Callable[[Evidence], object]],
) -> None:
    spoiled = spoil(evidence)
    assert {check.problems for check in CHECKS if list(check.problems(spoiled))} == found


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.problems.__name__)
def test_no_check_trips_over_evidence_of_nothing(check: checks.Check) -> None:
    list(check.problems(Evidence(0, {}, {}, 0, [], [])))
