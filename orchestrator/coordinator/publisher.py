"""Business events on their way from history to users' topics, exactly once, off the workflow's way.

::

    store ──rows──▶ Publishing ──items──▶ EventPublisher ──one transaction──▶ users' topics + mark
    (of the fold)   coordinator's thread  a thread of its own

The store has a row for each committed turn with events that may be unpublished yet, by offset of history.
``Publishing`` feeds them, in that order, and deletes what was published. ``EventPublisher`` drops what the
mark says was published, and publishes the rest, many turns in one transaction with the next mark.

None of this asks who owns the partition. A process that lost it and does not know publishes turns that
count, for it has read them back, from the mark on, for it was fenced if anybody has published since. So a
pause, a crash or two publishers at a time change nothing. A crash before the mark: all of it is published
by the next one. After it: the next one drops it.

A run whose event the log refuses for good is *held back*: its turns from there on wait in memory, the mark
says so, and they are tried again; the other runs go on.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from orchestrator.codec import avro
from orchestrator.coordinator.runtime import Runtime
from orchestrator.errors import LogError
from orchestrator.log.port import Outcome, Published, Publisher
from orchestrator.log.topics import PUBLISHED
from orchestrator.protocol.publications import HeldBack, Publication, PublishMark

log = logging.getLogger(__name__)

MAX_QUEUED_TURNS = 1_000
MAX_QUEUED_BYTES = 4 * 1024 * 1024
"""What waits for the publisher in memory, per partition: the rest waits in the store."""

MAX_BATCH_RECORDS = 500
MAX_BATCH_BYTES = 1024 * 1024
"""What one transaction publishes: enough that its fixed cost does not matter, and done in milliseconds."""

MAX_HELD_RUNS = 500
"""Their names fit into one mark, a record of at most 1 MB."""

MAX_HELD_BYTES = 16 * 1024 * 1024
"""What is held back is kept in memory. Above either limit the partition publishes nothing until the log
takes something of it again."""

REOPEN_S = (0.2, 30.0)
"""First and longest delay before a publisher that failed is replaced. The first one is long enough for the
coordinator to notice that it has lost the partition, so that two do not fence each other again and again."""

RETRY_HELD_S = (5.0, 300.0)
"""First and longest delay before what is held back is tried again: somebody has to make a topic."""

MAX_REASON_CHARS = 200
"""Of a refusal, in the mark: for people."""

IDLE_S = 60.0
"""How long the publisher sleeps when it has nothing to do; it is woken before."""


class Item(msgspec.Struct, frozen=True, gc=False):
    """The business events of one committed turn, which is published as a whole."""

    offset: int
    workflow_id: str
    run_id: str
    records: tuple[Publication, ...]
    size_bytes: int


class Held(msgspec.Struct, eq=False):
    """A run that is held back, and its turns that wait."""

    reason: str
    offset: int
    items: deque[Item] = msgspec.field(default_factory=deque)


class Progress(msgspec.Struct, frozen=True):
    """Everything up to ``through`` was published but for runs that are held back: id → (from, why)."""

    through: int = -1
    held_back: dict[str, tuple[int, str]] = {}


class EventPublisher:
    """Publishes what it is given for one partition under one claim.

    :meth:`give`, :attr:`has_room`, :attr:`caught_up` and :attr:`progress` are for the coordinator's thread,
    all else is for the one that calls :meth:`step`. What they share is handed over by single operations.
    """

    def __init__(
        self,
        partition: int,
        make: Callable[[], Publisher],
        refusal: Callable[[str, int], str],
        runtime: Runtime,
        *,
        log_id: str,
        on_room: Callable[[], None],
    ) -> None:
        """``on_room`` is called when there is room again after there was none."""
        self.partition = partition
        self.progress = Progress()
        """The newest progress; replaced, never changed."""
        self.caught_up = False
        """Set by the coordinator once all that the store had at the claim was given: so what is held back is
        complete, and may be tried again."""
        self._make, self._refusal, self._runtime = make, refusal, runtime
        self._log_id = log_id
        self._on_room = on_room
        self._inbox: deque[Item] = deque()
        self._given_bytes = self._taken_bytes = 0
        self._was_full = False
        self._publisher: Publisher | None = None
        self._waiting: deque[Item] = deque()
        self._held: dict[str, Held] = {}
        self._held_bytes = 0
        self._retrying: deque[str] = deque()
        self._retry_at_s = 0.0
        self._retries = 0
        self._retry_is_next = False
        self._not_before_s = 0.0
        self._failures = 0

    # ---------------------------------------------------------------------- the coordinator's thread

    @property
    def has_room(self) -> bool:
        """Whether an item may be given."""
        queued_bytes = self._given_bytes - self._taken_bytes
        self._was_full = len(self._inbox) >= MAX_QUEUED_TURNS or queued_bytes >= MAX_QUEUED_BYTES
        return not self._was_full

    def give(self, item: Item) -> None:
        """The next item, in the order of history."""
        self._given_bytes += item.size_bytes
        self._inbox.append(item)

    # ------------------------------------------------------------------------------- its own thread

    def step(self) -> float:
        """Do one thing that may block; returns the seconds to wait before the next, if nobody wakes it."""
        now_s = self._runtime.monotonic_s()
        if now_s < self._not_before_s:
            return self._not_before_s - now_s
        try:
            return self._step(now_s)
        except LogError as error:
            return self._fail(str(error))
        except Exception as error:  # nothing may end the publishing of a partition but the end of its claim
            log.exception("partition %d: publishing failed", self.partition)
            return self._fail(f"{type(error).__name__}: {error}")

    def close(self) -> None:
        """Publish nothing more."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _step(self, now_s: float) -> float:
        if self._publisher is None:
            self._open()
            return 0.0
        may_retry = self.caught_up
        self._take()
        if self._inbox and self._inbox[0].offset <= self.progress.through:
            may_retry = False
        batch = self._next_batch()
        due_s = self._retry_at_s - now_s if self._held and may_retry else IDLE_S
        if due_s <= 0 and (self._retry_is_next or not batch):
            self._retry_is_next = False
            return self._retry()
        self._retry_is_next = True
        return self._publish(batch) if batch else min(due_s, IDLE_S)

    def _take(self) -> None:
        """Take of the queue what a transaction can use."""
        size = sum(item.size_bytes for item in self._waiting)
        while self._inbox and len(self._waiting) < MAX_BATCH_RECORDS and size < MAX_BATCH_BYTES:
            item = self._inbox.popleft()
            self._taken_bytes += item.size_bytes
            if item.offset > self.progress.through:
                size += item.size_bytes
            self._receive(item)

    def _open(self) -> None:
        """Fence older publishers, and see what the mark says of what is here."""
        publisher = self._make()
        try:
            found = publisher.open()
            mark = self._decode(found)
        except BaseException:
            publisher.close()
            raise
        self._publisher = publisher
        held_back = [item for held in self._held.values() for item in held.items]
        items = sorted([*self._waiting, *held_back], key=lambda item: item.offset)
        self._held = {
            run_id: Held(held.reason, held.offset)
            for run_id, held in self._held.items()
            if held.offset > mark.offset  # refused lately, and not in the mark yet
        }
        self._held |= {told.run_id: Held(told.reason, told.offset) for told in mark.held_back}
        self._waiting.clear()
        self._held_bytes = 0
        self._note(mark.offset)
        for item in items:
            self._receive(item)

    def _receive(self, item: Item) -> None:
        """Put a turn where it belongs by the mark; what was published is dropped."""
        if item.offset > self.progress.through:
            self._waiting.append(item)
        elif self._is_held(item):
            self._hold(self._held[item.run_id], item)

    def _is_held(self, item: Item) -> bool:
        """Whether it waits for a turn of its run, or is the one; earlier turns of a run leave before it."""
        held = self._held.get(item.run_id)
        return held is not None and item.offset >= held.offset

    def _decode(self, found: bytes | None) -> PublishMark:
        if found is None:
            return PublishMark(log_id=self._log_id)
        mark: PublishMark = avro.decode(found, PUBLISHED)
        if mark.log_id != self._log_id:
            log.warning("partition %d: the mark is of history %r, not of this", self.partition, mark.log_id)
            return PublishMark(log_id=self._log_id)
        return mark

    def _next_batch(self) -> list[Item]:
        """The next turns, as many as one transaction takes; of runs held back as much as is kept of them."""
        batch: list[Item] = []
        records = size = 0
        held_bytes = self._held_bytes
        for item in self._waiting:
            if self._is_held(item):
                if held_bytes >= MAX_HELD_BYTES:
                    break
                held_bytes += item.size_bytes
            else:
                records, size = records + len(item.records), size + item.size_bytes
                if batch and (records > MAX_BATCH_RECORDS or size > MAX_BATCH_BYTES):
                    break
            batch.append(item)
        return batch

    def _publish(self, batch: Sequence[Item]) -> float:
        """Publish the next turns; of a run that is held back only the mark moves on."""
        leaving = [item for item in batch if not self._is_held(item)]
        for item in leaving:
            if reason := self._refused(item):
                return self._begin_to_hold(item, reason)
        held_back = {run_id: held.offset for run_id, held in self._held.items()}
        published = self._transact(leaving, batch[-1].offset, held_back)
        if published.outcome is Outcome.REFUSED:
            self._replace()
            return self._begin_to_hold(_item_at(leaving, published.refused), published.error)
        if published.outcome is not Outcome.DELIVERED:
            return self._fail(published.error)
        for item in batch:
            self._waiting.popleft()
            if self._is_held(item):
                self._hold(self._held[item.run_id], item)
        self._note(batch[-1].offset)
        return 0.0

    def _refused(self, item: Item) -> str:
        """Why the log is known to refuse one of an item's records."""
        for record in item.records:
            if reason := self._refusal(record.topic, record.size_bytes):
                return reason
        return ""

    def _transact(self, items: Iterable[Item], through: int, held_back: Mapping[str, int]) -> Published:
        assert self._publisher is not None
        mark = PublishMark(
            offset=through,
            held_back=tuple(
                HeldBack(run_id=run_id, offset=offset, reason=self._held[run_id].reason[:MAX_REASON_CHARS])
                for run_id, offset in held_back.items()
                if offset <= through
            ),
            log_id=self._log_id,
        )
        records = [record for item in items for record in item.records]
        published = self._publisher.publish(records, avro.encode(mark))
        if published.outcome is Outcome.DELIVERED:
            self._failures = 0
            self._runtime.at("published")
        return published

    def _note(self, through: int) -> None:
        """Tell the coordinator."""
        held_back = {run_id: (held.offset, held.reason) for run_id, held in self._held.items()}
        self.progress = Progress(through, held_back)
        if self._was_full:
            self._on_room()

    # ------------------------------------------------------------------------------- what goes wrong

    def _fail(self, reason: str) -> float:
        """Whether it was published is unknown, or it was fenced: a new publisher will read the mark."""
        log.warning("partition %d: a new publisher is needed: %s", self.partition, reason)
        self._replace()
        first_s, longest_s = REOPEN_S
        delay_s = min(longest_s, first_s * 2.0 ** min(self._failures, 10))
        delay_s *= 1 + self._runtime.random.random()
        self._failures += 1
        self._not_before_s = self._runtime.monotonic_s() + delay_s
        return delay_s

    def _replace(self) -> None:
        publisher, self._publisher = self._publisher, None
        if publisher is not None:
            publisher.close()

    def _begin_to_hold(self, item: Item, reason: str) -> float:
        """A run's events are refused for good: its turns from this one on wait."""
        if len(self._held) >= MAX_HELD_RUNS:
            return self._fail(f"{len(self._held)} runs are held back already, and now: {reason}")
        whose = f"workflow {item.workflow_id!r}, run {item.run_id}"
        log.error("partition %d: the business events of %s are held back: %s", self.partition, whose, reason)
        if not self._held:
            self._retries = 0
            self._schedule_retry()
        self._held[item.run_id] = Held(reason, item.offset)
        return 0.0

    def _hold(self, held: Held, item: Item) -> None:
        held.items.append(item)
        self._held_bytes += item.size_bytes

    def _schedule_retry(self) -> None:
        first_s, longest_s = RETRY_HELD_S
        self._retry_at_s = self._runtime.monotonic_s() + min(longest_s, first_s * 2.0**self._retries)
        self._retries = min(self._retries + 1, 10)

    def _retry(self) -> float:
        """Try what is held back again, one turn at a time."""
        if not self._retrying:
            self._retrying.extend(self._held)
        run_id = self._retrying.popleft()
        held = self._held.get(run_id)
        delay_s = 0.0
        if held is not None and held.items:
            delay_s = self._retry_run(run_id, held)
        elif held is not None and held.offset > self.progress.through:
            del self._held[run_id]  # there was no room for its turns: it is tried where it waits
        if not self._retrying:
            self._schedule_retry()
        return delay_s

    def _retry_run(self, run_id: str, held: Held) -> float:
        item = held.items[0]
        if reason := self._refused(item):
            held.reason = reason
            return 0.0
        held_back = {run_id: held.offset for run_id, held in self._held.items()}
        if len(held.items) > 1:
            held_back[run_id] = held.items[1].offset
        else:
            del held_back[run_id]
        published = self._transact([item], self.progress.through, held_back)
        if published.outcome is Outcome.REFUSED:
            held.reason = published.error
            self._replace()
            return 0.0
        if published.outcome is not Outcome.DELIVERED:
            return self._fail(published.error)
        self._retries = 0
        self._held_bytes -= held.items.popleft().size_bytes
        if held.items:
            held.offset = held.items[0].offset
            self._retrying.appendleft(run_id)
        else:
            log.info("partition %d: the events of run %s go on", self.partition, run_id)
            del self._held[run_id]
        self._note(self.progress.through)
        return 0.0


def _item_at(items: Sequence[Item], place: int) -> Item:
    """The item whose record stands at a place among the records of all."""
    for item in items:
        if place < len(item.records):
            return item
        place -= len(item.records)
    raise LogError(f"the log refused the record at {place}, and there is none")
