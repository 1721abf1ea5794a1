"""The claim protocol of design.md §3, on every log. Each test says which sentence it shows."""

from __future__ import annotations

import pytest

from orchestrator.coordinator.ownership import (
    ACK_DEADLINE_S,
    BEHIND_WAIT_S,
    CLAIM_AGAIN_S,
    OUTBID_WAIT_S,
    Phase,
)
from orchestrator.engine.validity import Validity
from orchestrator.log.faults import Fate
from orchestrator.log.port import Change
from orchestrator.protocol.records import history_key
from tests.conformance.log.harness import Harness
from tests.conformance.ownership.contender import (
    PARTITION,
    Contender,
    Foreigner,
    claim,
    poll,
    position,
    steps,
    turn,
)


@pytest.fixture
def foreigner(harness: Harness) -> Foreigner:
    return Foreigner(harness)


class TestClaims:
    def test_a_claim_carries_the_next_epoch_and_the_generation(
        self, harness: Harness, foreigner: Foreigner
    ) -> None:
        """“Append a claim with E+1 and the group's generation, and go on until it is read back.”"""
        foreigner.write(claim(7))
        owner = Contender(harness, "a").assign(generation=42)
        assert not owner.it.running
        poll(owner, until=lambda: owner.it.running)
        made = foreigner.claims()[-1]
        assert (made.epoch, made.generation, made.owner, made.nonce) == (8, 42, "a", owner.it.nonce)

    def test_a_claim_is_alone(self, harness: Harness, foreigner: Foreigner) -> None:
        """“A producer's first batch has no protection, hence the lone claim”: nothing goes with it."""
        owner = Contender(harness, "a").assign()
        assert owner.it.in_flight == 0
        poll(owner, until=lambda: owner.it.running)
        assert [type(record).__name__ for _, record in foreigner.decoded()] == ["Claim"]
        owner.append("1")
        poll(owner, until=lambda: owner.committed == ["1"])
        assert [type(record).__name__ for _, record in foreigner.decoded()] == ["Claim", "Turn"]

    @pytest.mark.parametrize("epoch", [0, 3, 4])
    def test_a_claim_that_is_not_higher_is_nothing(
        self, harness: Harness, foreigner: Foreigner, epoch: int
    ) -> None:
        """“A claim is valid iff its epoch is above E. Only a valid foreign claim counts as foreign.”"""
        foreigner.write(claim(3))
        owner = Contender(harness, "a").own()
        foreigner.write(claim(epoch, owner="late"))
        owner.append("1")
        poll(owner, until=lambda: owner.committed == ["1"])
        assert owner.it.running
        assert not owner.losses

    def test_of_two_claims_of_one_epoch_the_first_counts(
        self, harness: Harness, foreigner: Foreigner
    ) -> None:
        """“My claim means my nonce”: an epoch alone proves nothing."""
        harness.hold()
        rivals = [Contender(harness, name).assign() for name in ("a", "b")]
        steps(*rivals)
        harness.release()
        poll(*rivals, until=lambda: sorted(r.it.phase.value for r in rivals) == ["outbid", "running"])
        winner = next(rival for rival in rivals if rival.it.running)
        first, *others = foreigner.claims()
        assert first.owner == winner.name
        # Both were under way; but a busy broker may let one wait until it is outbid, and so purged.
        assert [claim.epoch for claim in (first, *others)] in ([1, 1], [1])

    def test_a_claim_that_loses_against_a_higher_one_is_made_again_above_it(
        self, harness: Harness, foreigner: Foreigner
    ) -> None:
        """“Then try again after a random 1–6 s and a proof of membership.”"""
        owner = Contender(harness, "a").join()
        harness.hold()
        owner.assign()
        harness.release()
        foreigner.write(claim(9))
        poll(owner, until=lambda: owner.it.phase is Phase.OUTBID or owner.it.running)
        if owner.it.running:  # its claim landed first: the higher one comes all the same
            poll(owner, until=lambda: owner.it.phase is Phase.OUTBID)
        owner.wait(OUTBID_WAIT_S[0] - 0.1)
        assert owner.it.phase is Phase.OUTBID
        owner.wait(OUTBID_WAIT_S[1])
        poll(owner, until=lambda: owner.it.running)
        assert foreigner.claims()[-1].epoch == 10

    def test_a_claim_without_an_answer_is_made_again(self, harness: Harness, foreigner: Foreigner) -> None:
        """“While the broker is away p stays in CLAIMING.” An older claim of its own is not foreign."""
        harness.hold()
        owner = Contender(harness, "a").assign()
        steps(owner, count=5)
        assert owner.it.phase is Phase.CLAIMING
        first = owner.it.nonce
        owner.wait(ACK_DEADLINE_S + 1)
        assert owner.it.nonce != first
        steps(owner, count=2)
        harness.release()
        poll(owner, until=lambda: owner.it.running)  # without a wait, though the first one may have landed
        valid = max(foreigner.claims(), key=lambda made: made.epoch)
        assert valid.nonce == owner.it.nonce != first

    def test_who_is_behind_the_last_claim_lets_its_owner_be(
        self, harness: Harness, foreigner: Foreigner
    ) -> None:
        """“A process whose generation is below the last valid claim's waits at most 10 s.”"""
        late = Contender(harness, "late").join()
        foreigner.write(claim(1, generation=7))
        late.assign(generation=6)
        for _ in range(9):
            late.wait(BEHIND_WAIT_S / 10)
            steps(late, count=2)
        assert [made.owner for made in foreigner.claims()] == ["rival"]
        late.wait(BEHIND_WAIT_S / 10)
        poll(late, until=lambda: late.it.running)

    @pytest.mark.parametrize("fate", [Fate.LOSE, Fate.REFUSE])
    def test_a_claim_that_the_log_did_not_take_is_made_again_and_does_not_spin(
        self, harness: Harness, foreigner: Foreigner, fate: Fate
    ) -> None:
        """“While the broker is away p stays in CLAIMING and does not spin.”"""
        owner = Contender(harness, "a").assign()
        harness.faults.fates[f"claim/1/{owner.it.nonce}".encode()] = fate
        steps(owner, count=5)
        assert (owner.it.phase, foreigner.claims()) == (Phase.CLAIMING, [])
        owner.wait(CLAIM_AGAIN_S + 0.1)
        poll(owner, until=lambda: owner.it.running)
        assert len(foreigner.claims()) == 1

    def test_only_who_is_a_member_claims_again(self, harness: Harness) -> None:
        """“The consumer group only says who should try”: who was outbid asks it before he does."""
        rivals = {}
        for name in ("a", "b"):
            rivals[name] = Contender(harness, name)
            rivals[name].member.join()
        members = [rival.member for rival in rivals.values()]
        harness.poll(*members, until=lambda _: all(harness.seen(m).memberships for m in members))
        for _ in range(50):  # until nothing moves any more
            polled = [member.poll(0) for member in members]
            harness.pass_time()
            if not any(found.memberships for found in polled):
                break
        holders = [rival for rival in rivals.values() if rival.member.confirm_membership(PARTITION)]
        (holder,) = holders
        (other,) = (rival for rival in rivals.values() if rival is not holder)
        holder.own()
        other.own()  # its membership lied
        poll(holder, until=lambda: holder.it.phase is Phase.OUTBID)
        holder.wait(OUTBID_WAIT_S[1])
        poll(holder, other, until=lambda: holder.it.running and other.it.phase is Phase.OUTBID)
        for _ in range(10):
            other.wait(OUTBID_WAIT_S[1])
        steps(holder, other, count=5)
        assert other.it.phase is Phase.OUTBID
        assert holder.it.running


class TestTurns:
    def test_a_turn_counts_under_the_last_claim_with_a_growing_seq(
        self, harness: Harness, foreigner: Foreigner
    ) -> None:
        """“A turn or position is valid iff its epoch is E and its seq is above the last of this epoch.”"""
        foreigner.write(claim(2), turn(2, 1), turn(2, 3), turn(2, 2), position(2, 4), turn(1, 9))
        foreigner.write(turn(3, 1), claim(3), turn(2, 5, run_id="late"), turn(3, 1, run_id="next"))
        reader = Contender(harness, "a").assign()
        offsets = [offset for offset, _ in foreigner.decoded()]
        assert [offset for offset, _ in reader.counted] == [offsets[n] for n in (1, 2, 4, 9)]
        assert reader.it.validity.void_records == 4
        assert reader.counted == foreigner.truth()

    def test_the_owner_reads_its_own_turns_back_in_order(self, harness: Harness) -> None:
        """“A turn that comes back before any foreign claim is committed.”"""
        owner = Contender(harness, "a").own()
        entries = [str(n) for n in range(50)]
        owner.append(*entries)
        assert not owner.committed
        poll(owner, until=lambda: owner.committed == entries)
        assert owner.it.in_flight == 0

    def test_late_turns_of_a_former_owner_are_void(self, harness: Harness, foreigner: Foreigner) -> None:
        """“Nothing of an earlier owner can count any more, however long that one was paused.”"""
        former = Contender(harness, "a").own()
        former.append("before")
        poll(former, until=lambda: former.committed == ["before"])
        former.append("paused-1", "paused-2")  # and does not poll
        successor = Contender(harness, "b").own(generation=2)
        successor.append("1")
        poll(successor, until=lambda: successor.committed == ["1"])
        seen = harness.poll(former.member, until=lambda seen: len(seen.deliveries) >= 2)  # they have landed
        former.take(seen.deliveries, seen.records)
        steps(former)
        successor.append("2")
        poll(successor, until=lambda: successor.committed == ["1", "2"])
        assert former.it.phase is Phase.OUTBID
        assert former.committed == ["before"]
        written = [getattr(record, "run_id", "") for _, record in foreigner.decoded()]
        assert "a-paused-2" in written
        counted = [getattr(record, "run_id", "") for _, record in foreigner.truth()]
        assert counted == ["a-before", "b-1", "b-2"]
        assert successor.counted == foreigner.truth()

    def test_what_lies_before_the_claim_is_the_whole_truth(
        self, harness: Harness, foreigner: Foreigner
    ) -> None:
        """“If it is valid, everything valid before it is the whole truth.”"""
        foreigner.write(claim(1), turn(1, 1))
        owner = Contender(harness, "a").assign()
        foreigner.write(turn(1, 2, run_id="at-the-last-moment"))
        poll(owner, until=lambda: owner.it.running)
        foreigner.write(turn(1, 3, run_id="too-late"))
        steps(owner, count=5)
        assert owner.it.running
        assert owner.counted == foreigner.truth()
        assert "too-late" not in [getattr(record, "run_id", "") for _, record in owner.counted]


class TestIncidents:
    @pytest.mark.parametrize("fate", [Fate.LOSE, Fate.LAND_UNSEEN, Fate.REFUSE])
    def test_there_are_no_unknown_outcomes(self, harness: Harness, foreigner: Foreigner, fate: Fate) -> None:
        """“What was in flight is then before that claim, and counts, or after it, and does not.”"""
        owner = Contender(harness, "a").own()
        harness.faults.fates[history_key(turn(owner.it.validity.epoch, 0, run_id="a-2"))] = fate
        owner.append("1", "2", "3")
        poll(owner, until=lambda: bool(owner.losses) and owner.it.running)
        steps(owner)
        assert owner.counted == foreigner.truth()
        counted = [getattr(record, "run_id", "") for _, record in owner.counted]
        assert counted == ["a-1", "a-2", "a-3"][: len(counted)]
        owner.append("4")
        poll(owner, until=lambda: owner.committed[-1:] == ["4"])
        assert owner.counted == foreigner.truth()

    def test_state_is_never_dropped_under_a_living_claim(
        self, harness: Harness, foreigner: Foreigner
    ) -> None:
        """“First read back what is in flight, or claim anew”: an incident has a claim of its own."""
        owner = Contender(harness, "a").own()
        for n in range(3):
            owner.append(str(n))
            owner.it.incident()
        poll(owner, until=lambda: owner.it.running)
        epochs = [made.epoch for made in foreigner.claims()]
        assert epochs[-1] == owner.it.validity.epoch
        assert owner.it.in_flight == 0
        assert owner.counted == foreigner.truth()

    def test_silence_is_an_incident(self, harness: Harness) -> None:
        """“10 s without an acknowledgement” ask for a new claim, for the outcome is unknown."""
        owner = Contender(harness, "a").own()
        harness.hold()
        owner.append("1")
        steps(owner, count=2)
        owner.clock.elapsed_s += ACK_DEADLINE_S + 1
        assert owner.it.tick() is not None
        harness.release()

    def test_two_duel_and_nothing_counts_twice(self, harness: Harness, foreigner: Foreigner) -> None:
        """“The log itself decides who owns a partition and what counts.”"""
        rivals = [Contender(harness, name) for name in ("a", "b")]
        for number in range(6):
            rival = rivals[number % 2]
            rival.own(generation=number)
            rival.append(f"{number}-1", f"{number}-2")
            if number % 3:
                poll(rival, until=lambda rival=rival: rival.it.in_flight == 0)  # type: ignore[misc]
        steps(*rivals)
        reader = Contender(harness, "c").assign()
        assert reader.counted == foreigner.truth()
        runs = [getattr(record, "run_id", "") for _, record in reader.counted]
        assert len(runs) == len(set(runs))
        told = [f"{rival.name}-{entry}" for rival in rivals for entry in rival.committed]
        assert set(told) <= set(runs), "what was committed to its owner counts for everybody"


class TestRecords:
    def test_no_key_is_ever_written_twice(self, harness: Harness, foreigner: Foreigner) -> None:
        """“So compaction cannot replace a record that counts by one that does not.”"""
        for number in range(4):
            owner = Contender(harness, "same-name").own(generation=number)
            owner.append("same-run")
            poll(owner, until=lambda owner=owner: owner.committed == ["same-run"])  # type: ignore[misc]
        keys = [record.key for record in foreigner.records()]
        assert len(keys) == len(set(keys)) == 8
        before = foreigner.decoded()
        harness.compact()
        assert foreigner.decoded() == before

    def test_compaction_in_between_changes_nothing_that_counts(
        self, harness: Harness, foreigner: Foreigner
    ) -> None:
        """“Everything else is void: skipped, counted, and tombstoned by the next owner. Claims stay.”"""
        foreigner.write(claim(1), turn(1, 1, run_id="kept"), claim(2))
        void = turn(1, 2, run_id="void")
        foreigner.write(void, turn(2, 1, run_id="kept", number=2))
        truth = foreigner.truth()
        foreigner.write(void, tombstone=True)
        foreigner.write(turn(1, 3, run_id="later"))
        harness.compact()
        foreigner.write(turn(1, 4, run_id="last"))  # the last record is always kept
        harness.compact()
        harness.restart()
        foreigner = Foreigner(harness)
        owner = Contender(harness, "a").own()
        assert history_key(void) not in [record.key for record in foreigner.records()]
        assert owner.it.validity.void_records == 2
        assert owner.counted == foreigner.truth() == truth
        assert [made.epoch for made in foreigner.claims()] == [1, 2, 3]
        owner.append("1")
        poll(owner, until=lambda: owner.committed == ["1"])

    def test_a_restore_goes_on_from_a_checkpoint(self, harness: Harness, foreigner: Foreigner) -> None:
        """“Read history from the store's checkpoint to its end”: offset, epoch and seq are enough."""
        former = Contender(harness, "a").own()
        former.append("1", "2")
        poll(former, until=lambda: former.committed == ["1", "2"])
        at = former.it.validity
        validity = Validity(epoch=at.epoch, nonce=at.nonce, seq=at.seq, generation=at.generation)
        offset = former.it.next_offset
        former.append("3")
        poll(former, until=lambda: former.committed[-1] == "3")
        foreigner.write(turn(at.epoch, 1, run_id="again"))
        successor = Contender(harness, "b").assign(2, validity, offset)
        assert successor.counted == foreigner.truth()[2:]

    def test_claims_and_turns_outlive_the_log(self, harness: Harness) -> None:
        """“A crash anywhere loses nothing”: after a restart the next epoch is above all before."""
        owner = Contender(harness, "a").own()
        owner.append("1", "2", "3")
        poll(owner, until=lambda: owner.committed == ["1", "2", "3"])
        before = owner.counted
        harness.restart()
        foreigner = Foreigner(harness)
        successor = Contender(harness, "b").own(generation=2)
        assert successor.counted == before == foreigner.truth()
        assert [(made.epoch, made.generation) for made in foreigner.claims()] == [(1, 1), (2, 2)]


class TestMembership:
    def test_generations_grow_with_every_change_and_restart(self, harness: Harness) -> None:
        """“The generation is a start counter in the folder”: a later owner's claim has a higher one."""
        generations = []
        for _ in range(3):
            member = harness.member()
            member.join()
            seen = harness.poll(member, until=lambda seen: bool(seen.memberships))
            assert {found.change for found in seen.memberships} == {Change.ASSIGNED}
            generations.append(max(found.generation for found in seen.memberships))
            member.close()
            harness.restart()
        assert generations == sorted(set(generations))
