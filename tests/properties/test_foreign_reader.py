"""`examples/kafka_history.py` reads history by docs/wire.md, with none of our code: they agree."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.codec import avro
from orchestrator.engine.validity import Parts, Validity
from orchestrator.protocol.events import TimerFired
from orchestrator.protocol.ids import murmur2
from orchestrator.protocol.records import Activation, Claim, Marks, Position, Turn, history_key

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "kafka_history.py"
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(EXAMPLE.parent)  # as for a program that is run: it has a module beside it
    FOREIGN = runpy.run_path(str(EXAMPLE))
AVRO = FOREIGN["Avro"]("history")
OWNED: dict[str, Any] = {"marks": Marks(), "sent_through": 0, "time_ms": 0}


def claim(epoch: int) -> Claim:
    """An owner's claim."""
    return Claim(epoch=epoch, nonce="n", owner="o", generation=1, time_ms=0)


def turn(epoch: int, seq: int, number: int = 1, part: int = 0, parts: int = 1, timer: int = 7) -> Turn:
    """A turn of the only run, with an event that tells it from others."""
    return Turn(
        epoch=epoch,
        seq=seq,
        workflow_id="w",
        run_id="r",
        turn=number,
        first_event_id=10 * number + part,
        activation=Activation.NONE,
        events=(TimerFired(timer_id=timer),),
        part=part,
        parts=parts,
        **OWNED,
    )


@st.composite
def histories(draw: st.DrawFn) -> list[Claim | Turn | Position]:
    """Mostly what owners write, one after another; now and then a late one writes, or a part is missing."""
    found: list[Claim | Turn | Position] = []
    epoch, seq = 0, 0
    for kind in draw(
        st.lists(st.sampled_from(("claim", "position", "turn", "part", "last part")), max_size=20)
    ):
        late = draw(st.integers(0, 5)) == 0
        if kind == "claim":
            epoch, seq = (epoch, seq) if late else (epoch + 1, 0)
            found.append(claim(epoch))
            continue
        seq += not late
        by = epoch - 1 if late and draw(st.booleans()) else epoch
        if kind == "position":
            found.append(Position(epoch=by, seq=seq, **OWNED))
        else:
            part, parts = draw(st.sampled_from(SHAPES[kind]))
            found.append(turn(by, seq, part=part, parts=parts, timer=len(found)))
    return found


SHAPES = {"turn": [(0, 1)], "part": [(0, 0), (1, 0)], "last part": [(1, 2), (2, 3)]}
"""Of a record of a turn: its part, and the number of parts if it is the last one."""


def foreign(found: list[tuple[bytes, bytes | None]]) -> list[tuple[int, list[int]]]:
    """What the example makes of records: of each turn its first event's number, and its timers."""
    runs = FOREIGN["valid_turns"](AVRO, found)
    return [
        (whole["first_event_id"], [fields["timer_id"] for _, fields in whole["events"]])
        for whole in runs.get("r", [])
    ]


@given(histories())
@example([claim(1), turn(1, 1, part=0, parts=0), claim(2), turn(2, 1, part=1, parts=2)])
def test_the_rule_of_validity_is_the_same(found: list[Claim | Turn | Position]) -> None:
    validity, parts, expected = Validity(), Parts(), []
    for record in found:
        if not validity.judge(record):
            continue
        if isinstance(record, Claim):
            parts.drop()
        elif isinstance(record, Turn) and (whole := parts.add(record)) is not None:
            expected.append((whole.first_event_id, [event.timer_id for event in whole.events]))  # type: ignore[union-attr]
    assert foreign([(history_key(record), avro.encode(record)) for record in found]) == expected


def test_a_run_without_its_first_turn_is_none() -> None:
    first, second = turn(2, 1), turn(2, 2, number=2)
    found: list[tuple[bytes, bytes | None]] = [
        (history_key(record), avro.encode(record)) for record in (claim(2), first, second)
    ]
    assert len(foreign(found)) == 2
    late = turn(1, 1)
    assert len(foreign([*found, (history_key(late), None)])) == 2, "that was a void one's tombstone"
    assert foreign([*found, (history_key(first), None)]) == []
    assert foreign([found[0], found[2]]) == [], "the first one is compacted away"


@given(st.binary(max_size=40))
def test_the_hash_is_the_same(key: bytes) -> None:
    assert FOREIGN["murmur2"](key) == murmur2(key)
