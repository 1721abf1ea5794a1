"""What a worker does with each delivery: start it, hold it, give it back, or ignore it.

Rules only: no I/O and no clock. A delivery is one dispatch of one attempt to one incarnation. It may
stand in the inbox more than once, since a new owner of a partition sends again what it cannot prove to
have been sent; an attempt is never started twice, because

- each delivery is remembered, returned ones too, until 5 min of append time after its report is durable;
- one that is not remembered is started only if it was appended within 30 s of its dispatch. A record
  that comes later may be the repeat of one that is forgotten, so it is returned.

Both times are the log's; the worker's clock has no say.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

import msgspec

from orchestrator.log.aio import DeliveredTask
from orchestrator.protocol.tasks import ActivityTask, CancelTask

STALE_AFTER_MS = 30_000
"""How much later than its dispatch a delivery may be appended. Far below ``REMEMBER_MS``: what is
forgotten is stale."""

REMEMBER_MS = 300_000
"""How long a delivery is remembered after its report is durable, in append time of the inbox."""

_GENERATION_MS = 30_000
"""Finished deliveries are forgotten in batches of this much append time."""


class DeliveryKey(NamedTuple):
    """What tells one delivery from all others."""

    run_id: str
    activity_id: int
    attempt: int
    dispatch: int


def key_of(task: ActivityTask | CancelTask) -> DeliveryKey:
    """The delivery that a task is, or that a cancellation means."""
    return DeliveryKey(task.run_id, task.activity_id, task.attempt, task.dispatch)


class ReturnReason(StrEnum):
    """Why a delivery is given back unstarted."""

    NO_SLOT = "no-slot"
    STALE = "stale"
    DRAINING = "draining"


class Returned(NamedTuple):
    """A delivery to give back."""

    task: ActivityTask
    reason: ReturnReason


class Verdict(msgspec.Struct):
    """What to do, in order of arrival.

    ``start``: run these. ``give_back``: report these as returned. ``cancel``: these run and are to
    be cancelled. ``canceled``: these were cancelled before they ran; report that.
    """

    start: list[ActivityTask] = []
    give_back: list[Returned] = []
    cancel: list[DeliveryKey] = []
    canceled: list[ActivityTask] = []


class InboxRules:
    """The deliveries of one incarnation.

    Whoever drives it calls :meth:`ended` when a started attempt no longer runs, and
    :meth:`reported` when the report on a delivery (its result, or its return) is durable.
    """

    def __init__(self, worker: str, slots: int) -> None:
        self.worker = worker
        self.slots = slots
        self.ignored = 0
        """How many deliveries were repeats, or not for this incarnation."""
        self._draining = False
        self._held: dict[DeliveryKey, ActivityTask] = {}
        self._running: set[DeliveryKey] = set()
        self._unreported: set[DeliveryKey] = set()
        self._finished = _Finished()
        self._append_time_ms = 0

    @property
    def running(self) -> int:
        """How many attempts run."""
        return len(self._running)

    @property
    def busy(self) -> int:
        """How many slots are taken, by attempts that run or are held."""
        return len(self._running) + len(self._held)

    @property
    def remembered(self) -> int:
        """How many deliveries are remembered."""
        return len(self._held) + len(self._unreported) + len(self._finished)

    def receive(self, batch: Iterable[DeliveredTask], *, may_start: bool, occupied: int = 0) -> Verdict:
        """Judge the next tasks of the inbox.

        Args:
            batch: the tasks, in order.
            may_start: whether this incarnation may start anything now; else what it would start is
                held until :meth:`release`.
            occupied: slots that are taken by attempts of an earlier incarnation of this worker.
        """
        verdict = Verdict()
        for task, append_time_ms in batch:
            if append_time_ms > self._append_time_ms:
                self._append_time_ms = append_time_ms
                self._finished.forget_before(append_time_ms - REMEMBER_MS)
            if task.worker != self.worker:
                self.ignored += 1
            elif isinstance(task, CancelTask):
                self._cancel(key_of(task), verdict)
            else:
                self._deliver(task, append_time_ms, may_start, occupied, verdict)
        return verdict

    def release(self) -> list[ActivityTask]:
        """What was held may start now."""
        tasks = list(self._held.values())
        self._running.update(self._held)
        self._unreported.update(self._held)
        self._held.clear()
        return tasks

    def drain(self) -> list[Returned]:
        """Start nothing more, for good. Returns what was held."""
        self._draining = True
        self._unreported.update(self._held)
        given_back = [Returned(task, ReturnReason.DRAINING) for task in self._held.values()]
        self._held.clear()
        return given_back

    def ended(self, key: DeliveryKey) -> None:
        """An attempt no longer runs; its slot is free."""
        self._running.discard(key)

    def reported(self, key: DeliveryKey) -> None:
        """The report on a delivery is durable."""
        self._unreported.discard(key)
        self._finished.add(key, self._append_time_ms)

    def _deliver(
        self, task: ActivityTask, append_time_ms: int, may_start: bool, occupied: int, verdict: Verdict
    ) -> None:
        key = key_of(task)
        if key in self._unreported or key in self._held or key in self._finished:
            self.ignored += 1
            return
        reason = self._reason_to_return(task, append_time_ms, occupied)
        if reason is None and not may_start:
            self._held[key] = task
            return
        self._unreported.add(key)
        if reason is not None:
            verdict.give_back.append(Returned(task, reason))
        else:
            self._running.add(key)
            verdict.start.append(task)

    def _reason_to_return(
        self, task: ActivityTask, append_time_ms: int, occupied: int
    ) -> ReturnReason | None:
        if append_time_ms - task.dispatched_time_ms > STALE_AFTER_MS:
            return ReturnReason.STALE
        if self._draining:
            return ReturnReason.DRAINING
        if self.busy + occupied >= self.slots:
            return ReturnReason.NO_SLOT
        return None

    def _cancel(self, key: DeliveryKey, verdict: Verdict) -> None:
        task = self._held.pop(key, None)
        if task is not None:
            self._unreported.add(key)
            verdict.canceled.append(task)
        elif key in self._running:
            verdict.cancel.append(key)
        # Else it ended before its cancellation came: the coordinator learns that from the report.


class _Finished:
    """Deliveries whose report is durable, as 64-bit fingerprints in generations.

    A busy worker remembers a million of them. Two that share a fingerprint would cost the second its
    attempt (it would time out); at a million remembered that happens once in 10**13 deliveries.
    """

    def __init__(self) -> None:
        self._generations: deque[tuple[int, set[int]]] = deque()

    def __len__(self) -> int:
        return sum(len(fingerprints) for _, fingerprints in self._generations)

    def __contains__(self, key: DeliveryKey) -> bool:
        fingerprint = hash(key)
        return any(fingerprint in fingerprints for _, fingerprints in self._generations)

    def add(self, key: DeliveryKey, append_time_ms: int) -> None:
        if not self._generations or append_time_ms - self._generations[-1][0] >= _GENERATION_MS:
            self._generations.append((append_time_ms, set()))
        self._generations[-1][1].add(hash(key))

    def forget_before(self, append_time_ms: int) -> None:
        """Forget generations of which all members were added before that time."""
        while self._generations and self._generations[0][0] + _GENERATION_MS <= append_time_ms:
            self._generations.popleft()
