"""What every log promises by ``orchestrator/log/port.py``."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from orchestrator.errors import AppenderFailed, LogError
from orchestrator.log.faults import Fate
from orchestrator.log.port import Appender, Change, Log
from orchestrator.log.topics import TOPICS
from tests.conformance.log.harness import Harness, Seen, read_all


def delivered(count: int) -> Callable[[Seen], bool]:
    return lambda seen: len(seen.deliveries) >= count


def read(count: int) -> Callable[[Seen], bool]:
    return lambda seen: len(seen.records) >= count


def polls(count: int) -> Callable[[Seen], bool]:
    """True at the given number of calls: when nothing is expected to come."""
    calls = iter(range(count))
    return lambda _: next(calls, None) is None


def write(
    harness: Harness, member: Log, *keys: str, topic: str = "history", value: bytes | None = b"v"
) -> None:
    """Append keys and wait until all are delivered."""
    appender = member.appender(ordered=True)
    before = len(harness.seen(member).deliveries)
    for key in keys:
        appender.append(topic, 0, key.encode(), value)
    harness.poll(member, until=delivered(before + len(keys)))


def keys_of(member: Log, topic: str = "history") -> list[bytes]:
    return [record.key for record in read_all(member, topic)]


class TestAppending:
    def test_records_are_read_back_in_the_order_of_the_appends(self, harness: Harness) -> None:
        member = harness.member()
        appender = member.appender(ordered=True)
        for partition in (0, 1):
            member.seek("history", partition, 0)
        for n in range(300):
            appender.append("history", n % 2, b"%d" % n, b"v%d" % n, token=n)
        seen = harness.poll(member, until=lambda s: len(s.records) >= 300 and len(s.deliveries) >= 300)
        for partition in (0, 1):
            expected = list(range(partition, 300, 2))
            assert [int(key) for key in seen.keys(partition=partition)] == expected
            assert [d.token for d in seen.deliveries if d.token % 2 == partition] == expected
            offsets = [r.offset for r in seen.records if r.partition == partition]
            assert offsets == sorted(set(offsets))
            assert offsets == [d.offset for d in seen.deliveries if d.token % 2 == partition]
        assert set(seen.outcomes().values()) == {"delivered"}

    def test_a_record_comes_back_as_it_was(self, harness: Harness) -> None:
        member = harness.member()
        appender = member.appender(ordered=False)
        member.seek("history", 0, 0)
        appender.append("history", 0, b"full", b"\x00v", headers={"a": b"1", "b": b""})
        appender.append("history", 0, b"empty", b"")
        appender.append("history", 0, b"", None)
        seen = harness.poll(member, until=read(3))
        found = {record.key: record for record in seen.records}
        assert found[b"full"].value == b"\x00v"
        assert dict(found[b"full"].headers) == {"a": b"1", "b": b""}
        assert found[b"empty"].value == b""
        assert dict(found[b"empty"].headers) == {}
        assert found[b""].value is None
        assert all(record.time_ms >= 1_000_000 for record in seen.records)

    def test_nothing_is_readable_or_acknowledged_before_it_is_durable(self, harness: Harness) -> None:
        member = harness.member()
        member.seek("history", 0, 0)
        harness.hold()
        member.appender(ordered=True).append("history", 0, b"k", b"v", token=1)
        seen = harness.poll(member, until=polls(3))
        assert not seen.records
        assert not seen.deliveries
        assert member.end("history", 0) == 0
        assert member.read("history", 0, 0, 10) == []
        harness.release()
        harness.poll(member, until=lambda s: bool(s.records and s.deliveries))
        assert seen.outcomes() == {1: "delivered"}

    def test_what_was_under_way_lands_after_its_appender_was_abandoned(self, harness: Harness) -> None:
        member = harness.member()
        appender = member.appender(ordered=True)
        harness.hold()
        appender.append("history", 0, b"under-way", b"v")
        harness.poll(member, until=polls(2))
        appender.append("history", 0, b"not-sent", b"v")
        appender.abandon()
        other = member.appender(ordered=True)
        other.append("history", 0, b"other", b"v", token="other")
        harness.release()
        seen = harness.poll(member, until=delivered(1))
        assert seen.outcomes() == {"other": "delivered"}
        assert sorted(keys_of(member)) == [b"other", b"under-way"]
        with pytest.raises(AppenderFailed):
            appender.append("history", 0, b"k", b"v")


class TestFailures:
    def append_three(self, harness: Harness, fate: Fate, *, ordered: bool) -> tuple[Log, Appender]:
        harness.faults.fates[b"2"] = fate
        member = harness.member()
        appender = member.appender(ordered=ordered)
        for n in (1, 2, 3):
            appender.append("history", 0, b"%d" % n, b"v", token=n)
        harness.poll(member, until=delivered(3))
        return member, appender

    @pytest.mark.parametrize(("fate", "word"), [(Fate.LOSE, "unknown"), (Fate.REFUSE, "refused")])
    def test_behind_a_record_that_failed_an_ordered_appender_lands_nothing(
        self, harness: Harness, fate: Fate, word: str
    ) -> None:
        member, appender = self.append_three(harness, fate, ordered=True)
        assert harness.seen(member).outcomes() == {1: "delivered", 2: word, 3: "unknown"}
        assert keys_of(member) == [b"1"]
        appender.abandon()
        write(harness, member, "4")
        assert keys_of(member) == [b"1", b"4"]

    def test_a_lost_acknowledgement_says_nothing_about_the_record(self, harness: Harness) -> None:
        member, _ = self.append_three(harness, Fate.LAND_UNSEEN, ordered=False)
        assert harness.seen(member).outcomes() == {1: "delivered", 2: "unknown", 3: "delivered"}
        assert sorted(keys_of(member)) == [b"1", b"2", b"3"]

    @pytest.mark.parametrize(("fate", "word"), [(Fate.LOSE, "unknown"), (Fate.REFUSE, "refused")])
    def test_a_failed_record_of_an_unordered_appender_harms_no_other(
        self, harness: Harness, fate: Fate, word: str
    ) -> None:
        member, _ = self.append_three(harness, fate, ordered=False)
        assert harness.seen(member).outcomes() == {1: "delivered", 2: word, 3: "delivered"}
        assert sorted(keys_of(member)) == [b"1", b"3"]

    def test_a_duplicate_has_an_offset_of_its_own(self, harness: Harness) -> None:
        member, _ = self.append_three(harness, Fate.DUPLICATE, ordered=False)
        harness.poll(member, until=lambda _: len(keys_of(member)) == 4)
        assert sorted(keys_of(member)) == [b"1", b"2", b"2", b"3"]

    def test_an_ordered_appender_makes_no_duplicates(self, harness: Harness) -> None:
        member, _ = self.append_three(harness, Fate.DUPLICATE, ordered=True)
        assert keys_of(member) == [b"1", b"2", b"3"]

    def test_refusals_say_what_was_found_and_expected(self, harness: Harness) -> None:
        member = harness.member()
        appender = member.appender(ordered=False)
        appender.append("history", 0, b"before", b"v", token="before")
        appender.append("history", 0, b"k", b"v" * 1024 * 1024, token="large")
        appender.append("histroy", 0, b"k", b"v", token="topic")
        appender.append("history", 99, b"k", b"v", token="partition")
        appender.append("history", 0, b"after", b"v", token="after")
        seen = harness.poll(member, until=delivered(5))
        errors = {d.token: d.error for d in seen.deliveries if d.outcome.value == "refused"}
        assert errors == {
            "large": "the record has 1048577 bytes, at most 1048576 are allowed on history",
            "topic": f"there is no topic 'histroy'; the topics are {', '.join(TOPICS)}",
            "partition": "there is no partition 99 of history; it has 4, from 0",
        }
        assert sorted(keys_of(member)) == [b"after", b"before"]


class TestReading:
    def test_read_brings_slices_and_is_empty_only_at_the_end(self, harness: Harness) -> None:
        member = harness.member()
        write(harness, member, *"abcde")
        found: list[bytes] = []
        offset = 0
        while records := member.read("history", 0, offset, 2):
            assert len(records) <= 2
            found += [record.key for record in records]
            offset = records[-1].offset + 1
        assert found == [b"a", b"b", b"c", b"d", b"e"]
        assert member.end("history", 0) == offset

    def test_seek_rewinds_and_unseek_stops(self, harness: Harness) -> None:
        member = harness.member()
        member.seek("history", 0, 0)
        write(harness, member, "a", "b")
        seen = harness.poll(member, until=read(2))
        member.seek("history", 0, seen.records[1].offset)
        harness.poll(member, until=read(3))
        assert seen.keys() == [b"a", b"b", b"b"]
        member.unseek("history", 0)
        write(harness, member, "c")
        harness.poll(member, until=polls(2))
        assert seen.keys() == [b"a", b"b", b"b"]

    def test_a_reader_at_the_end_sees_what_comes(self, harness: Harness) -> None:
        member, other = harness.member(), harness.member()
        write(harness, other, "a")
        member.seek("history", 0, member.end("history", 0))
        other.appender(ordered=True).append("history", 0, b"b", b"v")
        assert harness.poll(member, other, until=read(1)).keys() == [b"b"]

    def test_deleted_records_are_gone_and_reading_starts_behind_them(self, harness: Harness) -> None:
        member = harness.member()
        write(harness, member, *"abcd", topic="commands")  # Kafka deletes nothing from a compacted topic
        offsets = [record.offset for record in read_all(member, "commands")]
        member.delete_records("commands", 0, offsets[2])
        assert keys_of(member, "commands") == [b"c", b"d"]
        member.seek("commands", 0, 0)
        assert harness.poll(member, until=read(2)).keys("commands") == [b"c", b"d"]
        member.delete_records("commands", 0, offsets[1])  # deletes nothing that is there
        assert keys_of(member, "commands") == [b"c", b"d"]
        end = member.end("commands", 0)
        member.delete_records("commands", 0, end + 100)
        assert keys_of(member, "commands") == []
        assert member.end("commands", 0) == end
        write(harness, member, "e", topic="commands")
        assert keys_of(member, "commands") == [b"e"]

    def test_compaction_keeps_the_last_record_of_a_key_and_all_offsets(self, harness: Harness) -> None:
        member = harness.member()
        write(harness, member, "a", "b", "a", "c")
        write(harness, member, "b", value=None)
        write(harness, member, "d")
        harness.compact()
        write(harness, member, "e")  # Kafka's cleaner removes a tombstone when it comes the second time
        before = {record.offset: record.key for record in read_all(member)}
        harness.compact()
        harness.restart()
        member = harness.member()
        after = {record.offset: record.key for record in read_all(member)}
        assert list(after.values()) == [b"a", b"c", b"d", b"e"]
        assert after.items() <= before.items()
        assert member.end("history", 0) == max(before) + 1

    def test_compaction_never_removes_the_last_record(self, harness: Harness) -> None:
        member = harness.member()
        write(harness, member, "a")
        write(harness, member, "a", value=None)
        end = member.end("history", 0)
        harness.compact()
        harness.restart()
        member = harness.member()
        assert member.end("history", 0) == end
        assert [(record.key, record.value) for record in read_all(member)][-1] == (b"a", None)

    def test_topics_have_the_partitions_of_the_table(self, harness: Harness) -> None:
        member = harness.member()
        names = ("commands", "history", "tasks", "replies", "workers", "published", "dead-letters", "meta")
        assert [member.partitions(name) for name in names] == [4, 4, 32, 16, 1, 4, 1, 1]
        for call in (
            lambda: member.partitions("x"),
            lambda: member.seek("x", 0, 0),
            lambda: member.end("history", 4),
            lambda: member.read("history", 4, 0, 1),
        ):
            with pytest.raises(LogError, match="there is no"):
                call()

    @pytest.mark.timeout(60)  # is the assertion: it comes long before a poll would end by itself
    def test_wake_ends_a_poll_early(self, harness: Harness) -> None:
        member = harness.member()
        member.wake()
        member.poll(600)
        waker = threading.Timer(0.02, member.wake)
        waker.start()
        member.poll(600)
        waker.join()


class TestMembership:
    def owned(self, harness: Harness, member: Log) -> dict[int, int]:
        """The partitions that a member believes to own, with their generations."""
        owned: dict[int, int] = {}
        for change, partition, generation in harness.seen(member).memberships:
            if change is Change.ASSIGNED:
                owned[partition] = generation
            else:
                del owned[partition]
        return owned

    def test_one_member_gets_everything_in_one_generation(self, harness: Harness) -> None:
        member = harness.member()
        assert not member.confirm_membership(0)
        member.join()
        harness.poll(member, until=lambda s: len(s.memberships) == 4)
        assert set(self.owned(harness, member)) == {0, 1, 2, 3}
        assert len(set(self.owned(harness, member).values())) == 1
        assert all(member.confirm_membership(p) for p in range(4))

    def test_leaving_revokes_everything(self, harness: Harness) -> None:
        member = harness.member()
        member.join()
        harness.poll(member, until=lambda s: len(s.memberships) == 4)
        member.leave()
        seen = harness.poll(member, until=lambda s: len(s.memberships) == 8)
        assert {m.change for m in seen.memberships[4:]} == {Change.REVOKED}
        assert not any(member.confirm_membership(p) for p in range(4))

    def test_two_members_share_and_each_partition_is_revoked_before_it_moves(self, harness: Harness) -> None:
        first, second = harness.member(), harness.member()
        first.join()
        harness.poll(first, until=lambda s: len(s.memberships) == 4)
        before = self.owned(harness, first)
        second.join()
        assert not harness.poll(second, until=polls(2)).memberships  # the first one has not let go yet
        harness.poll(second, first, until=lambda s: len(s.memberships) == 2)
        mine, others = self.owned(harness, first), self.owned(harness, second)
        assert sorted([*mine, *others]) == [0, 1, 2, 3]
        assert len(others) == 2
        assert mine.items() <= before.items()
        assert min(others.values()) > max(before.values())
        for p in range(4):
            assert (first.confirm_membership(p), second.confirm_membership(p)) == (p in mine, p in others)
        second.close()
        harness.poll(first, until=lambda _: len(self.owned(harness, first)) == 4)
        assert max(self.owned(harness, first).values()) > max(others.values())

    def test_generations_grow_over_restarts(self, harness: Harness) -> None:
        member = harness.member()
        member.join()
        seen = harness.poll(member, until=lambda s: len(s.memberships) == 4)
        harness.restart()
        again = harness.member()
        again.join()
        later = harness.poll(again, until=lambda s: len(s.memberships) == 4)
        assert later.memberships[0].generation > seen.memberships[0].generation


def test_everything_delivered_is_there_after_a_restart(harness: Harness) -> None:
    member = harness.member()
    write(harness, member, *(str(n) for n in range(100)), topic="commands")
    member.delete_records("commands", 0, read_all(member, "commands")[10].offset)
    before = read_all(member, "commands")
    end = member.end("commands", 0)
    assert len(before) == 90
    harness.restart()
    member = harness.member()
    assert read_all(member, "commands") == before
    assert member.end("commands", 0) == end
    write(harness, member, "more", topic="commands")
    assert member.read("commands", 0, end, 10)[0].offset >= end


def test_every_start_of_an_ephemeral_topic_has_higher_offsets(harness: Harness) -> None:
    member = harness.member()
    member.appender(ordered=False).append("workers", 0, b"w", b"beat", token=1)
    first = harness.poll(member, until=delivered(1)).deliveries[0].offset
    harness.restart()
    member = harness.member()
    member.appender(ordered=False).append("workers", 0, b"w", b"beat", token=1)
    assert harness.poll(member, until=delivered(1)).deliveries[0].offset > first
