"""One partition of history and the store that it is folded into, as a view follows it.

Anything unexpected has one treatment: the store is closed, and opened again a little later; a damaged one is
empty then. Nothing that happens here reaches the other partitions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import LogError, Unavailable
from orchestrator.log.port import Log, Record
from orchestrator.log.topics import HISTORY
from orchestrator.protocol.views import PartitionFollowed
from orchestrator.store.fold import MAX_AWAY_MS, HistoryFold, outgrown
from orchestrator.store.partition_store import PartitionStore

_logger = logging.getLogger(__name__)

RETRY_MS = 1_000
"""Between attempts to open a store."""

NOTE_MS = 60_000
"""So often a store that is caught up notes that it is: a write that nothing else asks for."""


class Followed:
    """A partition of history. Of one thread, but for :meth:`status` and :meth:`shown`.

    ``end`` is where the log ended when somebody looked last. Raises ``LogError`` or ``Unavailable`` only
    where the log itself does not answer; then try again.
    """

    def __init__(self, number: int, log: Log, folder: Path, log_id: str, now_ms: Callable[[], int]) -> None:
        """For the arguments see ``Materializer``; the store is opened by :meth:`look`."""
        self.number = number
        self.end = 0
        self.ready = False
        """Whether it was caught up since its store was opened."""
        self._log, self._folder, self._log_id, self._now_ms = log, folder, log_id, now_ms
        self._store: PartitionStore | None = None
        self._fold: HistoryFold | None = None
        self._changed = False
        self._reconsider = False
        self._anew = ""
        """Why the store is to be wiped when it is opened next."""
        self._retry_at_ms = 0
        self._trouble = ""

    @property
    def offset(self) -> int:
        """The next record to read."""
        fold = self._fold
        return fold.next_offset if fold is not None else 0

    def take(self, record: Record) -> str:
        """The next record; returns why it is to be set aside, "" if all is well."""
        if self._fold is None:
            return ""
        try:
            self._changed = True
            return self._fold.take(record)
        except Exception as error:  # a damaged store, a failing disk, a fault of ours
            self._fail(error)
            return ""

    def write(self) -> None:
        """Write what was taken, in one batch with the offset."""
        if self._changed and self._fold is not None:
            try:
                self._fold.flush()
                self._changed = False
            except Exception as error:
                self._fail(error)

    def reconsider(self) -> None:
        """A schema was learnt: what could not be read before may be readable now. :meth:`look` looks."""
        self._reconsider = True

    def look(self) -> None:
        """Open the store if it is time, or again if need be; note whether it is caught up."""
        now_ms = self._now_ms()
        if self._store is not None and self._store.damaged:
            self._fail(RuntimeError("a read found damage"))
        elif self._store is not None and self._reconsider:
            self._anew = self._outgrown(self._store)
            self._reconsider = False
            if self._anew:
                self._leave()
                self._retry_at_ms = now_ms
        if self._store is None and now_ms >= self._retry_at_ms:
            self._open()
        if self._fold is not None and self.offset >= self.end:
            self.ready, self._trouble = True, ""
            if now_ms - self._fold.caught_up_ms >= NOTE_MS:
                self._fold.caught_up_ms = now_ms
                self._changed = True
                self.write()

    def shown(self) -> PartitionStore | None:
        """The store, if it may be shown."""
        return self._store if self.ready else None

    def status(self) -> PartitionFollowed:
        """How far it has come."""
        fold = self._fold
        return PartitionFollowed(
            partition=self.number,
            offset=self.offset,
            lag_records=max(0, self.end - self.offset),
            ready=self.ready,
            void_records=fold.validity.void_records if fold is not None else 0,
            trouble=self._trouble,
        )

    def close(self) -> None:
        """Let go of the store."""
        self.ready = self._changed = False
        if self._store is not None:
            self._store.close()
        self._store = self._fold = None

    def _open(self) -> None:
        """Go on where the store stands, or at the beginning if it is of no use."""
        self.end = self._log.end(HISTORY, self.number)
        store = None
        try:
            folder = self._folder / f"{self.number:05d}"
            store = PartitionStore(folder, log_id=self._log_id, indexed=True)
            if reason := self._anew or self._why_anew(store):
                _logger.warning("history %d is read from its beginning: %s", self.number, reason)
                store.wipe()
        except (LogError, Unavailable):
            if store is not None:
                store.close()
            raise
        except Exception as error:  # held by a reader that has not finished, or by a failing disk
            self._fail(error)
            return
        self._store, self._fold, self._anew = store, HistoryFold(store, strict=False), ""
        if not self.offset:
            self._fold.caught_up_ms = self._now_ms()
        self._log.seek(HISTORY, self.number, self.offset)

    def _why_anew(self, store: PartitionStore) -> str:
        found = store.checkpoint
        away_ms = self._now_ms() - found.caught_up_ms
        if found.offset > self.end:
            return f"it ends at {self.end}, and {found.offset} records of it were seen"
        if found.offset and away_ms > MAX_AWAY_MS:
            return f"its store was not kept for {away_ms // 3_600_000} h"
        return self._outgrown(store)

    def _outgrown(self, store: PartitionStore) -> str:
        def read(offset: int) -> Record | None:
            return next(iter(self._log.read(HISTORY, self.number, offset, 1)), None)

        return "records that could not be read before can be read now" if outgrown(store, read) else ""

    def _fail(self, error: Exception) -> None:
        """Go on in a moment, where the store stands then."""
        words = f"the store of history {self.number} is opened again: {error}"
        if words != self._trouble:
            _logger.error("%s", words, exc_info=error)
        self._trouble = words
        self._leave()

    def _leave(self) -> None:
        self._retry_at_ms = self._now_ms() + RETRY_MS
        self._log.unseek(HISTORY, self.number)
        self.close()
