"""The indexes and counters of a partition's runs, written with the turns that change them.

What was noted since the last flush is held against what the store has, once per run, so a run that starts and
ends between two flushes is written as it ended. Counters stand as numbers, not as differences: the batch that
holds them holds the checkpoint too, so a crash repeats no count.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import msgspec

from orchestrator.protocol.values import WorkflowStatus
from orchestrator.store import keys
from orchestrator.store.fingerprints import Alike
from orchestrator.store.listing import Listing
from orchestrator.store.minutes import Minutes
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.rows import FailureRow, Row
from orchestrator.store.summaries import Glance, Pending, Summary

MAX_KNOWN = 10_000
"""Open runs whose index rows are remembered: those of another one are read before they are changed."""

MAX_GROUPS = 1_000
"""Failure groups of a partition. Messages may differ in more than numbers; then they are shown as one."""

OTHERS = Alike("others", "", "", "", "(more kinds of failures than are told apart)")


class _Known(msgspec.Struct, gc=False):
    """What the store has of a run: its summary (None: nothing), and which activities have rows."""

    summary: Summary | None
    listed: set[int]


class _News(msgspec.Struct, gc=False):
    """What is to be written of a run; ``summary`` None: it is gone."""

    summary: Summary | None
    failure: Alike | None
    touched: dict[int, Pending | None]


class _Touched(NamedTuple):
    """Counters that a flush changes."""

    counts: set[tuple[WorkflowStatus, str]]
    groups: set[str]


_encode = msgspec.msgpack.Encoder().encode


class Indexes:
    """Those of one store. Of the thread that writes it."""

    def __init__(self, store: PartitionStore) -> None:
        """Go on where the store stands."""
        self._listing = Listing(store)
        self._counts, self._groups = store.counts, store.groups
        self._minutes = Minutes(store)
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._news: dict[str, _News] = {}

    def note(self, glance: Glance) -> None:
        """A turn counts: so does its run look after it."""
        summary = glance.summary
        if glance.first:
            self._known[summary.run_id] = _Known(None, set())
        elif not self._store_has(summary.run_id, summary.start_time_ms):
            return  # an older run than the store's beginning; it is not listed
        found = self._news.get(summary.run_id)
        if found is None:
            self._news[summary.run_id] = _News(summary, glance.failure, glance.touched)
        else:
            found.summary, found.failure = summary, glance.failure
            found.touched |= glance.touched

    def forget(self, run_id: str, start_time_ms: int) -> None:
        """A run leaves the store."""
        if self._store_has(run_id, start_time_ms):
            self._news[run_id] = _News(None, None, {})

    def take_rows(self) -> list[Row]:
        """The rows of everything that was noted, for the batch that covers it."""
        if not self._news:
            return []
        rows: list[Row] = []
        touched = _Touched(set(), set())
        for run_id, news in self._news.items():
            known = self._known[run_id]
            self._write_run(rows, known, news, touched)
            self._write_activities(rows, run_id, known, news)
            self._minutes.note(known.summary, news.summary)
            known.summary = news.summary
            if news.summary is None or news.summary.close_time_ms:
                del self._known[run_id]
        self._news = {}
        for status, kind in touched.counts:
            count = self._counts[status, kind]
            rows.append(Row(keys.count(status, kind), keys.pack_offset(count) if count else None))
        for fingerprint in touched.groups:
            group = self._groups.get(fingerprint)
            rows.append(Row(keys.failure_group(fingerprint), _encode(group) if group is not None else None))
        rows += self._minutes.take_rows()
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        return rows

    def _store_has(self, run_id: str, start_time_ms: int) -> bool:
        if run_id in self._known:
            self._known.move_to_end(run_id)
            return True
        summary = self._listing.run_at(keys.place(start_time_ms, run_id))
        if summary is None:
            return False
        self._known[run_id] = _Known(summary, set(self._listing.pending_of(run_id)))
        return True

    def _write_run(self, rows: list[Row], known: _Known, news: _News, touched: _Touched) -> None:
        before, after = known.summary, news.summary
        if after is not None:
            if news.failure is not None:
                after = news.summary = self._grouped(after, news.failure)
            rows.append(Row(keys.start(after.start_time_ms, after.run_id), _encode(after)))
            if before is not None and _place(before) == _place(after):
                if after.failure_group and before.attempt != after.attempt:
                    self._seen(after, touched)
                return
        if before is not None:
            rows += [Row(key, None) for key in _index_keys(before, whole=after is None)]
        if after is not None:
            rows += [Row(key, b"") for key in _index_keys(after, whole=before is None)]
            self._count(after, 1, touched)
            if after.failure_group:
                self._seen(after, touched)
        if before is not None:
            self._count(before, -1, touched)  # last: a group that becomes empty goes
            if after is None:
                rows.append(Row(keys.start(before.start_time_ms, before.run_id), None))

    def _grouped(self, summary: Summary, failure: Alike) -> Summary:
        """The summary, in a group that exists."""
        if failure.fingerprint not in self._groups and len(self._groups) >= MAX_GROUPS:
            failure = OTHERS
            summary = msgspec.structs.replace(summary, failure_group=OTHERS.fingerprint)
        if failure.fingerprint not in self._groups:
            self._groups[failure.fingerprint] = FailureRow(0, summary.time_ms, summary.time_ms, *failure[1:])
        return summary

    def _seen(self, summary: Summary, touched: _Touched) -> None:
        group = self._groups[summary.failure_group]
        group.last_time_ms = max(group.last_time_ms, summary.time_ms)
        touched.groups.add(summary.failure_group)

    def _count(self, summary: Summary, more: int, touched: _Touched) -> None:
        place = summary.status, summary.workflow_type
        self._counts[place] = self._counts.get(place, 0) + more
        touched.counts.add(place)
        if summary.failure_group:
            group = self._groups[summary.failure_group]
            group.runs += more
            if not group.runs:
                del self._groups[summary.failure_group]
            touched.groups.add(summary.failure_group)

    def _write_activities(self, rows: list[Row], run_id: str, known: _Known, news: _News) -> None:
        if news.summary is None or news.summary.close_time_ms:
            rows += [Row(keys.pending(run_id, activity_id), None) for activity_id in known.listed]
            return
        for activity_id, pending in news.touched.items():
            if pending is not None:
                rows.append(Row(keys.pending(run_id, activity_id), _encode(pending)))
                known.listed.add(activity_id)
            elif activity_id in known.listed:
                rows.append(Row(keys.pending(run_id, activity_id), None))
                known.listed.remove(activity_id)


def _place(summary: Summary) -> tuple[WorkflowStatus, str]:
    """What decides under which keys a run stands."""
    return summary.status, summary.failure_group


def _index_keys(summary: Summary, *, whole: bool) -> list[bytes]:
    """The keys of a run in the indexes; in those too that never change, if ``whole``."""
    place = keys.place(summary.start_time_ms, summary.run_id)
    found = [
        keys.by_status(summary.status) + place,
        keys.by_type(summary.workflow_type, summary.status) + place,
    ]
    if whole:
        found.append(keys.by_id(summary.workflow_id) + place)
    if summary.failure_group:
        found.append(keys.by_group(summary.failure_group) + place)
    return found
