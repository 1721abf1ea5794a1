"""Which records of history count."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from msgspec.structs import replace

from orchestrator.engine.validity import Parts, Validity
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Activation, Claim, HistoryRecord, Marks, Position, Turn


def claim(epoch: int, nonce: str = "a", generation: int = 1) -> Claim:
    return Claim(epoch=epoch, nonce=nonce, owner="o", generation=generation, time_ms=0)


def turn(epoch: int, seq: int) -> Turn:
    return Turn(
        epoch=epoch,
        seq=seq,
        marks=Marks(),
        sent_through=-1,
        time_ms=0,
        workflow_id="w",
        run_id="r",
        turn=seq,
        first_event_id=1,
        activation=Activation.NONE,
        events=(),
    )


def position(epoch: int, seq: int) -> Position:
    return Position(epoch=epoch, seq=seq, marks=Marks(), sent_through=-1, time_ms=0)


@dataclass
class Case:
    records: list[HistoryRecord]
    valid: list[bool]


CASES = {
    "a turn before any claim is void": Case([turn(1, 1), position(2, 1)], [False, False]),
    "claims with growing epochs count": Case([claim(1), claim(2), claim(9)], [True] * 3),
    "of two claims of one epoch the first counts": Case([claim(1, "a"), claim(1, "b")], [True, False]),
    "a lower claim is void": Case([claim(5), claim(4), turn(4, 1)], [True, False, False]),
    "turns and positions of the claim count": Case([claim(1), turn(1, 1), position(1, 2)], [True] * 3),
    "a late write of the former owner is void": Case(
        [claim(1), turn(1, 1), claim(2), turn(1, 2), turn(2, 1)], [True, True, True, False, True]
    ),
    "a write of a claim that is still to come is void": Case([claim(1), turn(2, 1)], [True, False]),
    "a repeated seq is void": Case([claim(1), turn(1, 1), turn(1, 1)], [True, True, False]),
    "a seq out of order is void": Case([claim(1), turn(1, 2), turn(1, 1)], [True, True, False]),
    "a gap in seq counts": Case([claim(1), turn(1, 1), turn(1, 5)], [True, True, True]),
    "seq begins anew with each claim": Case(
        [claim(1), turn(1, 7), claim(2), turn(2, 1)], [True, True, True, True]
    ),
    "a void claim does not disturb the present one": Case(
        [claim(2), turn(2, 1), claim(2, "b"), turn(2, 2)], [True, True, False, True]
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_rule(case: Case) -> None:
    validity = Validity()
    assert [validity.judge(record) for record in case.records] == case.valid
    assert validity.void_records == case.valid.count(False)


def test_who_owns_now() -> None:
    validity = Validity()
    for record in [claim(1, "a", 4), turn(1, 1), claim(2, "b", 6), claim(1, "c", 9), turn(2, 3)]:
        validity.judge(record)
    assert validity == Validity(epoch=2, nonce="b", seq=3, generation=6, void_records=1)


def test_a_reader_that_begins_at_a_checkpoint_comes_to_the_same() -> None:
    records = [record for case in CASES.values() for record in case.records]
    whole = Validity()
    judged = [whole.judge(record) for record in records]
    for cut in range(len(records)):
        part = Validity()
        for record in records[:cut]:
            part.judge(record)
        resumed = Validity(epoch=part.epoch, nonce=part.nonce, seq=part.seq, generation=part.generation)
        assert [resumed.judge(record) for record in records[cut:]] == judged[cut:]


# ---------------------------------------------------------------------------------------------- parts


def part(number: int, *, of: int = 0, epoch: int = 1) -> Turn:
    """A part of a turn; the last one says how many there are."""
    event = e.WorkflowSignaled(signal_name=f"s{number}")
    return replace(turn(epoch, number + 1), part=number, parts=of, events=(event,), first_event_id=number + 5)


def test_a_turn_of_one_part_is_whole() -> None:
    whole = turn(1, 1)
    assert Parts().add(whole) is whole


def test_a_turn_is_whole_with_its_last_part() -> None:
    parts = Parts()
    assert parts.add(part(0)) is None
    assert parts.add(part(1)) is None
    whole = Parts(parts.open).add(part(2, of=3))
    assert whole is not None
    assert [event.signal_name for event in whole.events] == ["s0", "s1", "s2"]  # type: ignore[union-attr]
    assert (whole.first_event_id, whole.seq) == (5, 3)


@pytest.mark.parametrize(
    "found",
    [
        [part(1), part(2, of=3)],
        [part(0), part(2, of=3)],
        [part(0), part(1, epoch=2), part(2, of=3, epoch=2)],
        [part(0), part(1), part(0), part(2, of=3)],
    ],
    ids=["without the first", "without one in the middle", "of two claims", "begun again"],
)
def test_a_turn_of_which_a_part_is_missing_is_void(found: list[Turn]) -> None:
    parts = Parts()
    assert [parts.add(one) for one in found] == [None] * len(found)
    assert parts.open == ()
    assert parts.add(turn(1, 9)) is not None, "what follows counts"


def test_what_is_dropped_is_not_completed() -> None:
    parts = Parts([part(0)])
    parts.drop()
    assert parts.add(part(1, of=2)) is None
