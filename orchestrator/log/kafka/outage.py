"""Tells the log's users once that Kafka does not answer, and once that it does again.

aiokafka reports each failed attempt of each of its tasks, a dozen times per second; here they are kept
from the user's log, and the last one explains the outage.
"""

from __future__ import annotations

import logging

_logger = logging.getLogger(__name__)


class LastWords(logging.Handler):
    """Keeps what a library complained of last."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.text = record.getMessage()


class Outage:
    """Whether the brokers at an address answer. One message when they stop, one when they do again."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._words = _listen()
        self._on = False

    def begin(self, words: str) -> None:
        """The brokers do not answer, in words of :meth:`describe`; said once per outage."""
        if not self._on:
            self._on = True
            _logger.warning("%s; what waits for it goes on by itself", words)

    def over(self) -> None:
        """The brokers answered."""
        if self._on:
            self._on = False
            self._words.text = ""
            _logger.warning("Kafka at %s answers again", self._bootstrap)

    def describe(self, why: str) -> str:
        """What is wrong, with the address and what the library said of it last."""
        said = f" ({self._words.text})" if self._words.text else ""
        return f"no answer from Kafka at {self._bootstrap}: {why}{said}"


_words = LastWords()


def _listen() -> LastWords:
    """Take aiokafka's complaints, unless the application handles or levels its loggers itself."""
    library = logging.getLogger("aiokafka")
    if _words not in library.handlers:
        handled = any(not isinstance(handler, logging.NullHandler) for handler in library.handlers)
        if not handled and library.level == logging.NOTSET:
            library.propagate = False
        library.addHandler(_words)
    return _words
