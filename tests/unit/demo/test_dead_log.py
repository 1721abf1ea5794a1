from __future__ import annotations

from pathlib import Path

import msgspec

from orchestrator.codec import avro
from orchestrator.demo.dead_log import read_dead_log, valid_turns
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.port import Outcome, Record
from orchestrator.log.topics import HISTORY
from orchestrator.protocol.events import TimerStarted, WorkflowStarted
from orchestrator.protocol.records import Activation, Claim, HistoryRecord, Marks, Position, Turn


def claim(epoch: int) -> Claim:
    return Claim(epoch=epoch, nonce=f"n{epoch}", owner="o", generation=epoch, time_ms=0)


def turn(number: int, epoch: int = 1, run_id: str = "r1", **fields: object) -> Turn:
    first = {"events": (WorkflowStarted(workflow_type="Order"),)}
    later = {"events": (TimerStarted(timer_id=number, fire_time_ms=0),)}
    known = Turn(
        epoch=epoch,
        seq=number,
        marks=Marks(),
        sent_through=-1,
        time_ms=0,
        workflow_id="o-1",
        run_id=run_id,
        turn=number,
        first_event_id=number,
        activation=Activation.DONE,
        **(first if number == 1 else later),
    )
    return msgspec.structs.replace(known, **fields)


def records(*written: HistoryRecord | None) -> list[Record]:
    return [
        Record(HISTORY, 0, offset, 0, b"k", avro.encode(item) if item is not None else None, {})
        for offset, item in enumerate(written)
    ]


def test_late_writes_of_a_former_owner_do_not_count() -> None:
    late = turn(2, epoch=1)
    found = list(valid_turns(iter(records(claim(1), turn(1), claim(2), late, turn(2, epoch=2)))))
    assert [(item.turn, item.epoch) for item in found] == [(1, 1), (2, 2)]


def test_positions_and_tombstones_are_no_turns() -> None:
    position = Position(epoch=1, seq=2, marks=Marks(), sent_through=0, time_ms=0)
    written = records(claim(1), turn(1), position, None, turn(3))
    assert [item.turn for item in valid_turns(iter(written))] == [1, 3]


def test_the_parts_of_a_turn_are_one() -> None:
    first = turn(1, parts=0)
    last = turn(2, turn=1, part=1, parts=2)
    (found,) = valid_turns(iter(records(claim(1), first, last)))
    assert (found.first_event_id, found.events) == (1, first.events + last.events)


def test_a_turn_that_lacks_a_part_does_not_count() -> None:
    first = turn(1, parts=0)
    written = records(claim(1), first, claim(2), turn(1, epoch=2))
    assert [item.epoch for item in valid_turns(iter(written))] == [2]


class Sink:
    """Writes history as an owner does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, partition: int, *written: HistoryRecord) -> None:
        with EmbeddedLog(self.folder) as log:
            member = log.member()
            appender = member.appender(ordered=True)
            for number, item in enumerate(written):
                appender.append(HISTORY, partition, f"{number}".encode(), avro.encode(item))
            delivered: list[Outcome] = []
            while len(delivered) < len(written):
                delivered += [delivery.outcome for delivery in member.poll(5).deliveries]
            assert set(delivered) == {Outcome.DELIVERED}
            member.close()


def test_a_dead_log_is_read_and_left_as_it_was(tmp_path: Path) -> None:
    Sink(tmp_path).write(3, claim(1), turn(1), turn(2))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = read_dead_log(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert (found["o-1"].run_id, found["o-1"].workflow_type, len(found["o-1"].turns)) == ("r1", "Order", 2)


def test_of_several_runs_of_an_id_the_latest_is_told(tmp_path: Path) -> None:
    second = turn(1, seq=2, run_id="r2")
    Sink(tmp_path).write(0, claim(1), turn(1), second)
    assert read_dead_log(tmp_path)["o-1"].run_id == "r2"
