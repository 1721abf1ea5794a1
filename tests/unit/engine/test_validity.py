"""Which records of history count."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from orchestrator.engine.validity import Validity
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
