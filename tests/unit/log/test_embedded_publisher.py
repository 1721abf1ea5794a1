"""Users' topics on the embedded log, as far as the port does not say it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from orchestrator.errors import LogError
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.embedded_publisher import EmbeddedPublisher
from orchestrator.log.faults import FaultHook
from orchestrator.log.port import Outcome
from orchestrator.protocol.publications import Publication


def event(topic: str, key: bytes = b"k") -> Publication:
    return Publication(topic=topic, key=key, value=b"v")


def test_a_topic_of_ours_and_one_of_users_may_have_the_same_name(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path) as log:
        publisher = EmbeddedPublisher(log, 0)
        publisher.open()
        publisher.publish([event("history")], b"m")
        assert (log.end("history", 0), log.end("user/history", 0)) == (0, 1)
        with pytest.raises(LogError, match="there is no topic 'user/other'"):
            log.count("user/other")
        with pytest.raises(LogError, match="there is no partition 1 of 'user/history'; it has 1"):
            log.end("user/history", 1)


def test_users_topics_are_not_compacted_and_can_be_cut_off(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path) as log:
        publisher = EmbeddedPublisher(log, 0)
        publisher.open()
        for _ in range(5):
            publisher.publish([event("t", b"same")], b"m")
        log.compact(lag_ms=0, tombstone_age_ms=0)
        assert len(log.read("user/t", 0, 0, 10)) == 5
        log.delete_records("user/t", 0, 3)
        assert [record.offset for record in log.read("user/t", 0, 0, 10)] == [3, 4]


def test_what_is_old_on_users_topics_goes_and_the_topic_stays(tmp_path: Path) -> None:
    clock = [1_000_000]
    with EmbeddedLog(tmp_path, now_ms=lambda: clock[0]) as log:
        publisher = EmbeddedPublisher(log, 0)
        publisher.open()
        for _ in range(3):
            publisher.publish([event("t"), event("t")], b"m")
            clock[0] += 1_000
        log.compact(events_age_ms=1_500)
        assert [record.offset for record in log.read("user/t", 0, 0, 10)] == [4, 5]
        clock[0] += 10_000
        log.compact(events_age_ms=1_500)
        assert (log.read("user/t", 0, 0, 10), log.end("user/t", 0)) == ([], 6)
    with EmbeddedLog(tmp_path) as log:
        assert (log.read("user/t", 0, 0, 10), log.end("user/t", 0)) == ([], 6)


class _FailsOnce(FaultHook):
    failing = False

    def before_sync(self) -> None:
        if self.failing:
            raise OSError("no space left")


def test_a_disk_that_fails_is_an_unknown_outcome(tmp_path: Path) -> None:
    faults = _FailsOnce()
    log = EmbeddedLog(tmp_path, faults=faults)
    publisher = EmbeddedPublisher(log, 0)
    publisher.open()
    faults.failing = True
    published = publisher.publish([event("t")], b"m")
    assert published.outcome is Outcome.UNKNOWN
    assert "no space left" in published.error
    log.close()


def test_many_publishers_make_their_topics_at_the_same_time(tmp_path: Path) -> None:
    def publish(partition: int) -> None:
        publisher = EmbeddedPublisher(log, partition)
        publisher.open()
        for number in range(20):
            outcome = publisher.publish([event("shared"), event(f"own-{partition}")], b"%d" % number).outcome
            assert outcome is Outcome.DELIVERED

    with EmbeddedLog(tmp_path) as log:
        threads = [threading.Thread(target=publish, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with EmbeddedLog(tmp_path) as log:
        assert len(log.read("user/shared", 0, 0, 1_000)) == 80
        assert [log.end(f"user/own-{partition}", 0) for partition in range(4)] == [20] * 4


def test_a_publisher_of_a_closed_log_says_so(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path)
    publisher = EmbeddedPublisher(log, 0)
    with pytest.raises(LogError, match="not open"):
        publisher.publish([], b"m")
    publisher.open()
    log.close()
    with pytest.raises(LogError, match="is closed"):
        publisher.publish([event("t")], b"m")
    with pytest.raises(LogError, match="is closed"):
        EmbeddedPublisher(log, 0).open()
