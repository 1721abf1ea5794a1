"""The tables of decide and evolve, and what a turn has to be."""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.engine import activity, decider, execution, timer
from orchestrator.engine.state import Changes, DeadlineKind
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Turn

from .kit import BOOM, STARTED, given

NOT_OF_THE_STATE = {e.ActivitiesAbandoned, e.EventPublished, e.UnknownEvent}


def test_every_event_is_in_the_table_or_is_for_others_to_read() -> None:
    assert set(decider.EVOLVE) == set(e.Event.__args__) - NOT_OF_THE_STATE  # type: ignore[attr-defined]


def test_every_event_of_the_table_is_in_a_life_cycle() -> None:
    rows = {event for _, event in [*execution.TRANSITIONS, *activity.TRANSITIONS, *timer.TRANSITIONS]}
    assert rows == set(decider.EVOLVE)


def test_every_command_and_deadline_has_its_place() -> None:
    elsewhere = {c.StartWorkflow, c.QueryWorkflow, c.AwaitResult, c.WorkerLost}
    assert set(decider.DECIDE) == set(c.Command.__args__) - elsewhere  # type: ignore[attr-defined]
    assert set(decider.DECIDE_DEADLINE) == set(DeadlineKind)


def turn_of(story_turn: Turn, **fields: object) -> Turn:
    return msgspec.structs.replace(story_turn, **fields)


def test_a_run_begins_with_its_first_turn_and_its_start() -> None:
    first = given().turns[0]
    with pytest.raises(ValueError, match="begins with turn 2"):
        decider.evolve(None, turn_of(first, turn=2), Changes())
    with pytest.raises(ValueError, match="WorkflowCompleted"):
        decider.evolve(None, turn_of(first, events=(e.WorkflowCompleted(),)), Changes())
    state = decider.evolve(None, first, Changes())
    assert (state.turn, state.next_event_id, state.workflow_type) == (1, 2, "Order")


@pytest.mark.parametrize("gap", [{"turn": 3}, {"turn": 1}, {"first_event_id": 3}, {"first_event_id": 1}])
def test_a_gap_in_turns_or_event_ids_is_impossible(gap: dict[str, int]) -> None:
    story = given().given(e.WorkflowSignaled(signal_name="x"))
    state = decider.evolve(None, story.turns[0], Changes())
    before = msgspec.msgpack.encode(state)
    with pytest.raises(ValueError, match="is at turn 1, event 1"):
        decider.evolve(state, turn_of(story.turns[1], **gap), Changes())
    assert msgspec.msgpack.encode(state) == before


def test_an_unknown_event_keeps_its_place_in_the_numbering() -> None:
    story = given(e.UnknownEvent(kind="activity_paused"), e.WorkflowSignaled(signal_name="x"))
    assert story.state.next_event_id == 4
    story.given(e.WorkflowCompleted()).given(e.UnknownEvent(kind="archived"))
    assert story.state.next_event_id == 6


def test_facts_that_wait_for_the_code_are_remembered_from_their_first_turn() -> None:
    state = given().state
    for activation, waits_from in [
        (Activation.NONE, 0),
        (Activation.DEFERRED, 3),
        (Activation.DEFERRED, 3),
        (Activation.NONE, 3),
        (Activation.DONE, 0),
        (Activation.DEFERRED, 7),
    ]:
        decider.end_turn(state, activation)
        assert state.deferred_from == waits_from
    assert state.turn == 7
    decider.evolve_events(state, [e.WorkflowTerminated()], 0, Changes())
    decider.end_turn(state, Activation.NONE)
    assert state.deferred_from == 0


def test_a_deadline_of_a_closed_run_changes_nothing() -> None:
    for kind in DeadlineKind:
        given(e.WorkflowFailed(failure=BOOM)).when_due(kind, at_ms=1).nothing()


def test_reports_to_nobody_change_nothing() -> None:
    command = c.CompleteActivity(
        workflow_id="x", run_id="y", activity_id=1, attempt=1, dispatch=1, worker="w"
    )
    assert decider.decide(None, command, 0) == ()
    assert STARTED.workflow_type == "Order"
