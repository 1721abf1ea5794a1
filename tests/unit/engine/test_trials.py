"""Who died of what, as claims and positions say it."""

from __future__ import annotations

from orchestrator.engine.trials import MAX_DEATHS, Trials
from orchestrator.protocol.records import Activation, Claim, Marks, Position, Turn


def claim(owner: str) -> Claim:
    return Claim(epoch=1, nonce="", owner=owner, generation=1, time_ms=0)


def position(trying: str = "") -> Position:
    return Position(epoch=1, seq=1, marks=Marks(), sent_through=-1, time_ms=0, trying=trying)


def turn(run_id: str, activation: Activation = Activation.DONE) -> Turn:
    return Turn(
        epoch=1,
        seq=1,
        marks=Marks(),
        sent_through=-1,
        time_ms=0,
        workflow_id="w",
        run_id=run_id,
        turn=1,
        first_event_id=1,
        activation=activation,
        events=(),
    )


def fold(*items: Claim | Position | Turn | int) -> Trials:
    """``int``: where commands stand from here on."""
    trials, mark = Trials(), 0
    for item in items:
        if isinstance(item, int):
            mark = item
        elif isinstance(item, Claim):
            trials = trials.after_claim(item, mark)
        else:
            trials = trials.after(item)
    return trials


def test_the_first_owner_is_not_suspicious_and_the_second_at_the_same_place_is() -> None:
    assert not fold(5, claim("a")).suspicious
    assert fold(5, claim("a"), claim("b")).suspicious
    assert fold(5, claim("a"), turn("r"), claim("b")).suspicious, "timers alone prove nothing"
    assert not fold(5, claim("a"), 6, claim("b")).suspicious


def test_an_owner_that_claims_anew_lives() -> None:
    assert not fold(5, claim("a"), claim("a"), claim("a")).suspicious
    assert fold(5, claim("a"), claim("b"), claim("b")).suspicious
    assert not fold(5, claim("a"), claim("b"), 6, claim("b")).suspicious
    assert fold(5, claim("a"), position("r"), claim("a")).deaths == ()


def test_an_owner_whose_last_word_is_a_trial_has_died_in_it() -> None:
    died = fold(5, claim("a"), position("r"), 6, claim("b"))
    assert died.deaths == (("r", "a"),)
    assert died.suspicious, "whatever was consumed meanwhile"
    again = fold(5, claim("a"), position("r"), claim("b"), position("r"), claim("c"))
    assert again.deaths == (("r", "a"), ("r", "b"))


def test_whatever_came_after_the_trial_shows_that_it_was_survived() -> None:
    for record in (turn("r"), turn("other"), position(), position("other")):
        assert ("r", "a") not in fold(5, claim("a"), position("r"), record, claim("b")).deaths


def test_a_run_whose_code_was_entered_and_left_is_acquitted() -> None:
    trial = (5, claim("a"), position("r"), claim("b"))
    assert fold(*trial, turn("r", Activation.DEFERRED)).deaths == (("r", "a"),)
    assert fold(*trial, turn("other")).deaths == (("r", "a"),)
    assert fold(*trial, turn("r")).deaths == ()


def test_deaths_are_forgotten_when_all_is_calm() -> None:
    trial = (5, claim("a"), position("r"), claim("b"), position())
    assert fold(*trial, claim("c")).deaths == (("r", "a"),), "nothing was consumed"
    assert fold(*trial, 6, claim("c")).deaths == ()


def test_there_is_a_limit() -> None:
    many = [item for n in range(2 * MAX_DEATHS) for item in (claim(str(n)), position(f"r{n}"))]
    assert len(fold(*many, claim("x")).deaths) == MAX_DEATHS
