"""Compaction of the embedded log: superseded records and old tombstones go, offsets stay.

As Kafka's cleaner does it: the *dirty* part (what came since the last time) is read into a map from key to
last offset, of bounded size; then everything up to there is passed once, and what the map supersedes is
deleted, oldest first. A crash in between leaves more records than necessary, never fewer, for a tombstone
is deleted after all that it superseded.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.log.record_store import RecordStore

MAP_KEYS = 500_000
"""Keys in the map at once: about 100 MB. A longer dirty part takes several passes."""

DELETE_BATCH_RECORDS = 1_000
"""Deletions per write, so that appends in between wait for a millisecond only."""


def compact_partition(
    store: RecordStore,
    topic: str,
    partition: int,
    *,
    start: int,
    end: int,
    settled_before_ms: int,
    tombstones_before_ms: int,
) -> int:
    """Compact one partition; returns how many records were deleted.

    The last record stays, whatever it is, so that the end of the partition is known.

    Args:
        store: where the records are.
        topic: the topic.
        partition: the partition.
        start: the first offset that may be read.
        end: the offset after the last durable record.
        settled_before_ms: records from this time on, and what they supersede, are left alone.
        tombstones_before_ms: tombstones before this time are deleted.
    """
    mark = f"compacted/{topic}/{partition}"
    dirty = max(start, int(store.mark(mark) or 0))
    deleted = 0
    while dirty < end - 1:
        latest: dict[bytes, int] = {}
        reached = dirty
        for record in store.scan(topic, partition, dirty, end - 1):
            if len(latest) >= MAP_KEYS or record.time_ms >= settled_before_ms:
                break
            latest[record.key] = record.offset
            reached = record.offset + 1
        if reached == dirty:
            break
        doomed = (
            record.offset
            for record in store.scan(topic, partition, start, reached)
            if latest.get(record.key, record.offset) > record.offset
            or (record.value is None and record.time_ms < tombstones_before_ms)
        )
        for offsets in _batches(doomed):
            store.delete(topic, partition, offsets)
            deleted += len(offsets)
        dirty = reached
        store.put_marks({mark: str(dirty).encode()})
    return deleted


def _batches(offsets: Iterator[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for offset in offsets:
        batch.append(offset)
        if len(batch) == DELETE_BATCH_RECORDS:
            yield batch
            batch = []
    if batch:
        yield batch
