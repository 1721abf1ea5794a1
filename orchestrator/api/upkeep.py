"""Compacts the log of a running engine now and then, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from typing import Protocol

from orchestrator.errors import LogError

_logger = logging.getLogger(__name__)

COMPACT_EVERY_S = 3_600.0
"""As old as a superseded record must be before it may go, so sooner would find little."""


class Compactable(Protocol):
    """A log, as far as it is of interest here."""

    def compact(self) -> int:
        """Let superseded records go; returns how many. Raises ``LogError``: the disk failed."""


class Upkeep:
    """Compacts a log every hour until it is closed."""

    def __init__(self, log: Compactable, *, every_s: float = COMPACT_EVERY_S) -> None:
        """Begin to wait."""
        self._log = log
        self._every_s = every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                deleted = self._log.compact()
            except LogError as error:
                _logger.warning("the log was not compacted: %s", error)
            else:
                _logger.info("the log was compacted: %d records went", deleted)

    def close(self) -> None:
        """End; returns when nothing touches the log any more, which may take a compaction's time."""
        self._ended.set()
        self._thread.join()
