"""The life of a timer."""

from __future__ import annotations

import pytest

from orchestrator.engine import timer
from orchestrator.engine.state import Deadline, DeadlineKind
from orchestrator.protocol import events as e

from .kit import NOW_MS, given

STARTED = e.TimerStarted(timer_id=1, fire_time_ms=NOW_MS + 50)
SAMPLES = [STARTED, e.TimerFired(timer_id=1), e.TimerCanceled(timer_id=1)]


@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(event).__name__)
@pytest.mark.parametrize("is_open", [False, True])
def test_every_transition_is_as_the_table_says(is_open: bool, event: e.Event) -> None:
    story = given(*([STARTED] if is_open else []))
    after = timer.TRANSITIONS.get((is_open, type(event)))
    if after is None:
        with pytest.raises(ValueError, match="timer 1 of run"):
            story.given(event)
    else:
        assert (1 in story.given(event).state.timers) is after


def test_a_timer_fires_once_at_its_time() -> None:
    story = given(STARTED)
    assert story.standing() == [Deadline(NOW_MS + 50, DeadlineKind.TIMER, 1)]
    story.when_due(DeadlineKind.TIMER).then(e.TimerFired(timer_id=1))
    assert story.standing() == []
    story.when_due(DeadlineKind.TIMER, at_ms=NOW_MS + 50).nothing()


def test_a_cancelled_timer_or_another_time_does_not_fire() -> None:
    story = given(STARTED)
    story.when_due(DeadlineKind.TIMER, at_ms=NOW_MS + 49).nothing()
    story.given(e.TimerCanceled(timer_id=1)).when_due(DeadlineKind.TIMER, at_ms=NOW_MS + 50).nothing()
