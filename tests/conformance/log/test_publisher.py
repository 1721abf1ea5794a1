"""What every log promises of its publishers by ``orchestrator/log/port.py``."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from orchestrator.errors import LogError
from orchestrator.log.faults import Fate
from orchestrator.log.port import Outcome, Published, Publisher
from orchestrator.log.topics import PUBLISH_MARK_KEY
from orchestrator.protocol.publications import Publication
from tests.conformance.log.harness import PATIENCE_S, Harness


def event(harness: Harness, key: str, topic: str = "orders", **fields: Any) -> Publication:
    return Publication(topic=harness.topic(topic), key=key.encode(), value=b"v-" + key.encode(), **fields)


def opened(harness: Harness, partition: int = 0) -> tuple[Publisher, bytes | None]:
    """A new publisher, and the mark. A log may fail to open it for a while, as when it is new itself."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        publisher = harness.member().publisher(partition)
        try:
            return publisher, publisher.open()
        except LogError:
            publisher.close()
            if time.monotonic() > deadline:
                raise


def publish(harness: Harness, publisher: Publisher, mark: bytes, *keys: str) -> Published:
    return publisher.publish([event(harness, key) for key in keys], mark)


def outcome_of(harness: Harness, publisher: Publisher, mark: bytes, *keys: str) -> Outcome:
    """A publisher that is of no use may say so by a ``LogError`` too."""
    try:
        return publish(harness, publisher, mark, *keys).outcome
    except LogError:
        return Outcome.UNKNOWN


def keys_of(harness: Harness, topic: str = "orders") -> list[str]:
    return [record.key.decode() for record in harness.published(topic)]


def test_records_land_in_order_and_the_next_publisher_finds_the_mark(harness: Harness) -> None:
    publisher, mark = opened(harness)
    assert mark is None
    assert publish(harness, publisher, b"one", "a", "b") == Published(Outcome.DELIVERED)
    assert publish(harness, publisher, b"two", "c") == Published(Outcome.DELIVERED)
    publisher.close()
    assert opened(harness)[1] == b"two"
    assert keys_of(harness) == ["a", "b", "c"]


def test_records_arrive_as_they_were(harness: Harness) -> None:
    publisher, _ = opened(harness)
    full = event(harness, "k", headers={"run-id": b"r", "empty": b""})
    gone = Publication(topic=harness.topic("orders"), key=b"", value=None)
    publisher.publish([full, gone, event(harness, "x", "other")], b"m")
    first, second = harness.published("orders")
    assert (first.key, first.value, dict(first.headers)) == (full.key, full.value, full.headers)
    assert (second.key, second.value, dict(second.headers)) == (b"", None, {})
    assert keys_of(harness, "other") == ["x"]


def test_a_mark_may_move_without_records(harness: Harness) -> None:
    publisher, _ = opened(harness)
    assert publish(harness, publisher, b"moved").outcome is Outcome.DELIVERED
    assert opened(harness)[1] == b"moved"


def test_each_partition_has_a_mark_and_a_publisher_of_its_own(harness: Harness) -> None:
    first, _ = opened(harness, 0)
    second, _ = opened(harness, 1)
    assert publish(harness, first, b"zero", "a").outcome is Outcome.DELIVERED
    assert publish(harness, second, b"one", "b").outcome is Outcome.DELIVERED
    assert (opened(harness, 0)[1], opened(harness, 1)[1]) == (b"zero", b"one")
    assert sorted(keys_of(harness)) == ["a", "b"]


def test_a_fenced_publisher_publishes_nothing(harness: Harness) -> None:
    older, _ = opened(harness)
    publish(harness, older, b"old", "a")
    newer, mark = opened(harness)
    assert mark == b"old"
    assert outcome_of(harness, older, b"late", "late") is Outcome.UNKNOWN
    assert outcome_of(harness, older, b"later", "later") is Outcome.UNKNOWN
    assert publish(harness, newer, b"new", "b").outcome is Outcome.DELIVERED
    assert opened(harness)[1] == b"new"
    assert keys_of(harness) == ["a", "b"]


def test_behind_a_refused_record_there_is_nothing(harness: Harness) -> None:
    harness.faults.fates[b"bad"] = Fate.REFUSE
    publisher, _ = opened(harness)
    publish(harness, publisher, b"before", "a")
    published = publish(harness, publisher, b"never", "b", "bad", "c")
    assert (published.outcome, published.refused) == (Outcome.REFUSED, 1)
    assert published.error
    assert outcome_of(harness, publisher, b"again", "d") is Outcome.UNKNOWN  # it must be opened anew
    publisher, mark = opened(harness)
    assert mark == b"before"
    publish(harness, publisher, b"after", "b", "c")
    assert keys_of(harness) == ["a", "b", "c"]


@pytest.mark.parametrize(("fate", "landed"), [(Fate.LOSE, False), (Fate.LAND_UNSEEN, True)])
def test_after_an_unknown_outcome_the_mark_tells_what_landed(
    harness: Harness, fate: Fate, landed: bool
) -> None:
    publisher, _ = opened(harness)
    publish(harness, publisher, b"before", "a")
    harness.faults.fates[PUBLISH_MARK_KEY] = fate
    assert publish(harness, publisher, b"unknown", "b", "c").outcome is Outcome.UNKNOWN
    harness.faults.fates.clear()
    assert outcome_of(harness, publisher, b"again", "b", "c") is Outcome.UNKNOWN
    _, mark = opened(harness)
    assert (mark == b"unknown") is landed
    assert keys_of(harness) == (["a", "b", "c"] if landed else ["a"])


def test_what_was_under_way_is_decided_when_the_next_one_is_open(harness: Harness) -> None:
    older, _ = opened(harness)
    publish(harness, older, b"before", "a")
    found: list[Published] = []
    harness.hold()
    working = threading.Thread(target=lambda: found.append(publish(harness, older, b"under-way", "b")))
    working.start()
    newer = harness.member().publisher(0)
    marks: list[bytes | None] = []
    opening = threading.Thread(target=lambda: marks.append(newer.open()))
    opening.start()
    harness.release()
    opening.join()
    landed = keys_of(harness) == ["a", "b"]
    working.join()
    assert marks == [b"under-way" if landed else b"before"]
    assert (found[0].outcome is Outcome.DELIVERED) is landed
    assert keys_of(harness) == (["a", "b"] if landed else ["a"])


def test_what_was_published_is_there_after_a_restart(harness: Harness) -> None:
    publisher, _ = opened(harness)
    publish(harness, publisher, b"one", "a", "b")
    before = harness.published("orders")
    harness.restart()
    assert harness.published("orders") == before
    publisher, mark = opened(harness)
    assert mark == b"one"
    publish(harness, publisher, b"two", "c")
    records = harness.published("orders")
    assert [record.key for record in records] == [b"a", b"b", b"c"]
    assert records[2].offset > records[1].offset


def test_old_marks_are_compacted_away(harness: Harness) -> None:
    publisher, _ = opened(harness)
    for number in range(5):
        publish(harness, publisher, b"%d" % number, str(number))
    harness.compact()
    harness.restart()
    assert opened(harness)[1] == b"4"
    assert keys_of(harness) == ["0", "1", "2", "3", "4"]


def test_nothing_is_known_to_be_wrong_with_a_topic_that_was_never_used(harness: Harness) -> None:
    assert harness.member().refusal_of_topic("never-used", 100) == ""
