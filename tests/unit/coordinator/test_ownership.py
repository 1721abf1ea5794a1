"""Who owns a partition: restore, claim, run, and every incident there is."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from orchestrator.codec import avro
from orchestrator.coordinator import ownership
from orchestrator.coordinator.ownership import (
    ACK_DEADLINE_S,
    BEHIND_WAIT_S,
    CLAIM_AGAIN_S,
    IDLE_S,
    OUTBID_WAIT_S,
    Ownership,
    Phase,
)
from orchestrator.coordinator.verdicts import Committed, Erased, Found, Lost, Owned, Verdict, Void
from orchestrator.engine.validity import Validity
from orchestrator.log.faults import Fate
from orchestrator.log.port import Record
from orchestrator.log.simulated import SimulatedCluster
from orchestrator.log.topics import HISTORY
from orchestrator.protocol.records import Activation, Claim, HistoryRecord, Marks, Position, Turn, history_key

from .kit import CALM, Hook, Runtime


def turn(epoch: int, seq: int, *, part: int = 0, parts: int = 1, number: int = 1) -> Turn:
    return Turn(
        epoch=epoch,
        seq=seq,
        marks=Marks(),
        sent_through=-1,
        time_ms=0,
        workflow_id="wf",
        run_id="run",
        turn=number,
        first_event_id=1,
        activation=Activation.NONE,
        events=(),
        part=part,
        parts=parts,
    )


def position(epoch: int, seq: int) -> Position:
    return Position(epoch=epoch, seq=seq, marks=Marks(), sent_through=-1, time_ms=0)


def foreign_claim(epoch: int, *, owner: str = "other", generation: int = 1) -> Claim:
    return Claim(epoch=epoch, nonce=f"foreign{epoch}", owner=owner, generation=generation, time_ms=0)


class Owner:
    """One partition of one member, polled by hand."""

    def __init__(self) -> None:
        self.runtime = Runtime()
        self.hook = Hook()
        self.cluster = SimulatedCluster(
            Random(3), self.runtime.wall_ms, partitions=1, faults=CALM, hook=self.hook
        )
        self.member = self.cluster.member("m")
        self.member.join()
        self.member.poll(0)
        self.it = Ownership(0, self.member, self.runtime, "me")
        self.verdicts: list[Verdict] = []
        self.voids: list[bytes] = []

    def land(self, *records: HistoryRecord) -> None:
        """Somebody else's writes."""
        for record in records:
            self.cluster.land(Record(HISTORY, 0, -1, 0, history_key(record), avro.encode(record), {}))

    def poll(self) -> list[Verdict]:
        """What the next poll brings, as verdicts."""
        polled = self.member.poll(0)
        found: list[Verdict | None] = [self.it.on_delivery(delivery) for delivery in polled.deliveries]
        found += [self.it.on_record(record) for record in polled.records]
        news = [verdict for verdict in found if verdict is not None]
        self.verdicts += news
        return news

    def tick(self) -> Lost | None:
        """What a coordinator asks of it in each step."""
        if self.it.wants_proof:
            self.it.prove()
            return None
        return self.it.tick()

    def restore(self) -> list[Found]:
        found: list[Found] = []
        while self.it.phase is Phase.RESTORING:
            read = list(self.it.restore_slice())
            found += [item for item in read if isinstance(item, Found) and not isinstance(item.record, Claim)]
            self.voids += [item.key for item in read if isinstance(item, Void)]
        return found

    def run(self) -> Owner:
        self.it.assign(1, Validity(), 0)
        self.restore()
        assert [type(verdict) for verdict in self.poll()] == [Owned]
        return self

    def append(self, count: int = 1, entry: object = "entry") -> list[Turn]:
        """Turns of one part each."""
        made = []
        for _ in range(count):
            epoch, seq = self.it.header()
            made.append(turn(epoch, seq, number=seq))
            self.it.append([made[-1]], [avro.encode(made[-1])], entry)
        return made

    def claims(self) -> list[Claim]:
        records = self.cluster.partition(HISTORY, 0).read(0, 10_000)
        decoded = [avro.decode(record.value) for record in records if record.value]
        return [record for record in decoded if isinstance(record, Claim)]


@pytest.fixture
def owner() -> Owner:
    return Owner()


def kinds(verdicts: Sequence[Verdict]) -> list[str]:
    return [type(verdict).__name__ for verdict in verdicts]


# ------------------------------------------------------------------------------------ restore and claim


def test_an_empty_partition_is_claimed_and_owned(owner: Owner) -> None:
    owner.it.assign(4, Validity(), 0)
    assert owner.restore() == []
    assert owner.it.phase is Phase.CLAIMING
    owned = owner.poll()
    assert owner.it.running
    (claim,) = owner.claims()
    assert owned == [Owned(claim, 0)]
    assert (claim.epoch, claim.owner, claim.generation, claim.nonce) == (1, "me", 4, owner.it.nonce)


def test_a_restore_yields_what_counts_and_claims_above_it(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ownership, "RESTORE_SLICE_RECORDS", 2)
    owner.land(foreign_claim(7), turn(7, 1), turn(6, 9), position(7, 2), turn(7, 2), foreign_claim(9))
    owner.land(turn(7, 3), turn(9, 1))
    owner.it.assign(1, Validity(), 0)
    found = owner.restore()
    assert [(item.offset, item.record.epoch, item.record.seq) for item in found] == [
        (1, 7, 1),
        (3, 7, 2),
        (7, 9, 1),
    ]
    assert kinds(owner.poll()) == ["Owned"]
    assert owner.claims()[-1].epoch == 10
    assert owner.it.validity.void_records == 3
    assert owner.voids == [b"run/1/6", b"run/1/7", b"run/1/7"]


def test_a_restore_goes_on_from_a_checkpoint(owner: Owner) -> None:
    owner.land(foreign_claim(1), turn(1, 1), turn(1, 2), turn(1, 3))
    owner.it.assign(1, Validity(epoch=1, nonce="foreign1", seq=2), 3)
    assert [item.record.seq for item in owner.restore()] == [3]


def test_what_lands_before_the_claim_is_found_and_what_lands_after_is_void(owner: Owner) -> None:
    owner.land(foreign_claim(1))
    owner.it.assign(1, Validity(), 0)
    owner.restore()
    owner.land(turn(1, 1))  # the claim is on its way, and not there yet
    assert kinds(owner.poll()) == ["Found", "Owned"]
    owner.land(turn(1, 2))
    assert owner.poll() == [Void(b"run/1/1", 3)]
    assert owner.it.validity.void_records == 1


def test_a_claim_that_is_not_answered_is_made_again(owner: Owner) -> None:
    owner.cluster.stalled = True
    owner.it.assign(1, Validity(), 0)
    owner.restore()
    first = owner.it.nonce
    owner.runtime.elapsed_s += ACK_DEADLINE_S
    assert owner.tick() is None
    assert owner.it.nonce == first
    owner.runtime.elapsed_s += 0.1
    owner.tick()
    assert owner.it.nonce != first
    assert owner.it.phase is Phase.CLAIMING


# ------------------------------------------------------------------------------------------ running


def test_turns_come_back_committed_with_their_entry(owner: Owner) -> None:
    owner.run()
    made = owner.append(3)
    assert [(record.epoch, record.seq) for record in made] == [(1, 1), (1, 2), (1, 3)]
    assert owner.it.in_flight == 3
    assert owner.it.in_flight_bytes > 0
    assert owner.poll() == [Committed(record, "entry", at) for at, record in enumerate(made, 1)]
    assert (owner.it.in_flight, owner.it.in_flight_bytes, owner.it.validity.seq) == (0, 0, 3)


def test_the_entry_comes_with_the_last_part(owner: Owner) -> None:
    owner.run()
    parts = [turn(*owner.it.header(), part=k, parts=3 if k == 2 else 0) for k in range(3)]
    owner.it.append(parts, [avro.encode(part) for part in parts], "whole")
    assert owner.it.last_entry() == "whole"
    assert owner.poll() == [
        Committed(part, "whole" if at == 3 else None, at) for at, part in enumerate(parts, 1)
    ]


def test_a_foreign_claim_outbids_and_what_comes_later_is_void(owner: Owner) -> None:
    owner.run()
    owner.land(foreign_claim(2))
    owner.append(2)
    assert kinds(owner.poll()) == ["Lost", "Void", "Void"]
    assert owner.it.phase is Phase.OUTBID
    assert owner.it.in_flight == 0
    assert owner.it.validity.void_records == 2


def test_what_landed_before_a_foreign_claim_counts(owner: Owner) -> None:
    owner.run()
    owner.append(1)
    assert kinds(owner.poll()) == ["Committed"]
    owner.append(1)
    owner.member.exchange()
    owner.land(foreign_claim(2), turn(2, 1))
    assert kinds(owner.poll()) == ["Committed", "Lost", "Found"]


def test_an_invalid_foreign_claim_is_nothing(owner: Owner) -> None:
    owner.run()
    owner.land(foreign_claim(1), foreign_claim(0))
    owner.append()
    assert kinds(owner.poll()) == ["Committed"]


def test_after_an_outbidding_it_waits_and_proves_its_membership(owner: Owner) -> None:
    owner.run()
    owner.land(foreign_claim(2))
    owner.poll()
    owner.runtime.elapsed_s += OUTBID_WAIT_S[0] - 0.1
    owner.tick()
    assert owner.it.phase is Phase.OUTBID
    owner.runtime.elapsed_s = OUTBID_WAIT_S[1]
    owner.member.poll(0)
    owner.tick()
    assert owner.it.phase is Phase.CLAIMING
    assert kinds(owner.poll()) == ["Owned"]
    assert owner.claims()[-1].epoch == 3


def test_without_membership_it_does_not_claim(owner: Owner) -> None:
    owner.run()
    owner.land(foreign_claim(2))
    owner.poll()
    owner.member.leave()
    for _ in range(20):
        owner.runtime.elapsed_s += OUTBID_WAIT_S[1]
        owner.tick()
    assert owner.it.phase is Phase.OUTBID
    assert len(owner.claims()) == 2


def test_two_claims_of_one_epoch_the_first_wins_and_the_other_is_outbid(owner: Owner) -> None:
    owner.it.assign(1, Validity(), 0)
    owner.restore()
    owner.land(foreign_claim(1))  # before ours
    assert kinds(owner.poll()) == ["Lost"]
    assert owner.it.phase is Phase.OUTBID


def test_who_is_behind_waits_longer_before_it_claims(owner: Owner) -> None:
    owner.land(foreign_claim(1, generation=2))
    owner.it.assign(1, Validity(), 0)
    owner.restore()
    assert owner.it.phase is Phase.OUTBID
    owner.runtime.elapsed_s = BEHIND_WAIT_S - 0.1
    owner.member.poll(0)
    owner.tick()
    assert (owner.it.phase, len(owner.claims())) == (Phase.OUTBID, 1)
    owner.runtime.elapsed_s = BEHIND_WAIT_S
    owner.tick()
    assert kinds(owner.poll()) == ["Owned"]


def test_who_hears_of_a_new_generation_is_behind_no_more(owner: Owner) -> None:
    owner.run()
    owner.land(foreign_claim(2, generation=2))
    owner.poll()
    owner.runtime.elapsed_s = OUTBID_WAIT_S[1]
    owner.member.poll(0)
    owner.tick()
    assert owner.it.phase is Phase.OUTBID
    owner.it.generation = 3
    owner.tick()
    assert kinds(owner.poll()) == ["Owned"]
    assert owner.claims()[-1].generation == 3


def test_an_older_claim_of_its_own_that_lands_late_costs_no_wait(owner: Owner) -> None:
    owner.it.assign(1, Validity(), 0)
    owner.restore()
    owner.land(foreign_claim(1, owner="me"))
    (lost,) = owner.poll()
    assert isinstance(lost, Lost)
    assert owner.it.phase is Phase.CLAIMING
    owner.it.incident()
    assert kinds(owner.poll()) == ["Owned"]
    assert owner.claims()[-1].epoch == 2


@pytest.mark.parametrize("fate", [Fate.LOSE, Fate.REFUSE])
def test_a_claim_that_the_log_does_not_take_is_made_again_after_a_while(owner: Owner, fate: Fate) -> None:
    owner.hook.fates[HISTORY] = [fate]
    owner.it.assign(1, Validity(), 0)
    owner.restore()
    assert owner.poll() == []
    owner.runtime.elapsed_s = CLAIM_AGAIN_S
    owner.tick()
    assert (owner.it.phase, owner.it.nonce, owner.claims()) == (Phase.CLAIMING, "", [])
    owner.runtime.elapsed_s = CLAIM_AGAIN_S + 0.1
    owner.tick()
    assert kinds(owner.poll()) == ["Owned"]


def test_a_claim_that_is_said_to_be_lost_after_it_was_read_back_is_an_incident(owner: Owner) -> None:
    owner.hook.fates[HISTORY] = [Fate.LAND_UNSEEN]
    owner.it.assign(1, Validity(), 0)
    owner.restore()
    polled = owner.member.poll(0)
    assert [type(owner.it.on_record(record)) for record in polled.records] == [Owned]
    (lost,) = (owner.it.on_delivery(delivery) for delivery in polled.deliveries)
    assert isinstance(lost, Lost)
    owner.it.incident()
    assert kinds(owner.poll()) == ["Owned"]


def test_a_claim_that_landed_unseen_is_followed_by_another_one_at_once(owner: Owner) -> None:
    owner.hook.fates[HISTORY] = [Fate.LAND_UNSEEN]
    owner.it.assign(1, Validity(), 0)
    owner.restore()
    assert kinds(owner.poll()) == ["Lost"], "its appender is broken: nothing may follow under it"
    owner.it.incident()
    assert kinds(owner.poll()) == ["Owned"]
    assert [made.epoch for made in owner.claims()] == [1, 2]


# ----------------------------------------------------------------------------------------- incidents


@pytest.mark.parametrize("fate", [Fate.LOSE, Fate.LAND_UNSEEN, Fate.REFUSE])
def test_an_append_that_was_not_delivered_is_an_incident(owner: Owner, fate: Fate) -> None:
    owner.run()
    owner.hook.fates[HISTORY] = [fate]
    owner.append(2)
    lost = [verdict for verdict in owner.poll() if isinstance(verdict, Lost)]
    assert len(lost) >= 1
    assert "append to history" in lost[0].reason
    former = owner.it.nonce
    owner.it.incident()
    assert owner.it.phase is Phase.CLAIMING
    assert (owner.it.in_flight, owner.it.nonce == former) == (0, False)
    verdicts = owner.poll()
    assert kinds(verdicts)[-1] == "Owned"
    assert owner.claims()[-1].epoch == 2


def test_deliveries_of_a_former_claim_are_of_no_interest(owner: Owner) -> None:
    owner.run()
    owner.hook.fates[HISTORY] = [Fate.LOSE]
    owner.append()
    polled = owner.member.poll(0)
    owner.it.incident()
    assert [owner.it.on_delivery(delivery) for delivery in polled.deliveries] == [None]


def test_ten_seconds_without_an_acknowledgement_are_an_incident(owner: Owner) -> None:
    owner.run()
    owner.cluster.stalled = True
    owner.append()
    owner.poll()
    owner.runtime.elapsed_s += ACK_DEADLINE_S
    assert owner.tick() is None
    owner.runtime.elapsed_s += 0.5
    lost = owner.tick()
    assert lost is not None
    assert "no acknowledgement" in lost.reason


def test_acknowledged_turns_do_not_become_overdue(owner: Owner) -> None:
    owner.run()
    owner.append(3)
    owner.poll()
    owner.runtime.elapsed_s += 100
    assert owner.tick() is None


def test_after_an_incident_what_was_in_flight_counts_if_it_lies_before_the_claim(owner: Owner) -> None:
    owner.run()
    made = owner.append(2)
    owner.member.exchange()  # they land, and are not read back
    owner.it.incident()
    verdicts = owner.poll()
    assert verdicts == [Found(made[0], 1), Found(made[1], 2), Owned(owner.claims()[-1], 3)]
    owner.land(made[1])
    assert owner.poll() == [Void(history_key(made[1]), 4)]


def test_a_record_of_this_claim_that_was_not_awaited_is_an_incident_and_counts(owner: Owner) -> None:
    owner.run()
    stray = turn(1, 5)
    owner.land(stray)
    (lost,) = owner.poll()
    assert isinstance(lost, Lost)
    assert lost.found == Found(stray, 1)


def test_a_revoked_partition_reads_nothing(owner: Owner) -> None:
    owner.run()
    owner.append()
    owner.it.revoke()
    assert owner.it.phase is Phase.IDLE
    assert owner.poll() == []
    owner.it.incident()
    assert owner.it.phase is Phase.IDLE


def test_records_below_the_next_offset_are_seen_once(owner: Owner) -> None:
    owner.run()
    owner.append()
    polled = owner.member.poll(0)
    assert [owner.it.on_record(record) is None for record in polled.records * 2] == [False, True]


def test_tombstones_say_only_what_is_gone(owner: Owner) -> None:
    owner.run()
    owner.cluster.land(Record(HISTORY, 0, -1, 0, b"run/1/1", None, {}))
    assert owner.poll() == [Erased(b"run/1/1", 1)]
    assert owner.it.next_offset == 2
    assert owner.it.validity.void_records == 0


def test_a_record_that_is_none_stops_the_process(owner: Owner) -> None:
    owner.run()
    owner.cluster.land(Record(HISTORY, 0, -1, 0, b"k", b"garbage", {}))
    with pytest.raises(avro.DecodeError):
        owner.poll()


def test_a_claim_goes_stale_when_nothing_was_appended_for_long(owner: Owner) -> None:
    owner.run()
    owner.runtime.elapsed_s += IDLE_S
    owner.append()
    owner.poll()
    owner.runtime.elapsed_s += IDLE_S
    assert not owner.it.stale
    owner.runtime.elapsed_s += 1
    assert owner.it.stale
    owner.it.incident()
    assert not owner.it.stale


# ------------------------------------------------------------------------------------------- limits


def test_saturation_by_turns(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "MAX_IN_FLIGHT_TURNS", 3)
    owner.run()
    owner.append(2)
    assert not owner.it.saturated
    owner.append(1)
    assert owner.it.saturated
    owner.poll()
    assert not owner.it.saturated


def test_saturation_by_bytes(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    owner.run()
    owner.append(1)
    monkeypatch.setattr(ownership, "MAX_IN_FLIGHT_BYTES", owner.it.in_flight_bytes + 1)
    assert not owner.it.saturated
    owner.append(1)
    assert owner.it.saturated
