"""Logging of the command line's roles: to stderr, one line per message."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from orchestrator.codec.people import visible

Level = Literal["debug", "info", "warning", "error"]

Format = Literal["text", "json"]

TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

QUIET = ("uvicorn", "httpx", "httpcore")
"""Libraries that tell of every request and connection: heard from warnings on."""

_OWN = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"})
"""What each record has; all else was given with it, by ``extra``: whose it is, mostly."""

_encode = msgspec.json.Encoder(enc_hook=repr).encode


_WHOSE = ("workflow_id", "run_id", "activity_type", "attempt")
"""What is said of a message beside it where people read."""


class TextFormatter(logging.Formatter):
    """One line per message, for people; with the ids of the run, and the activity's name, if it is of one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record and its traceback; what user code raises must not steer the terminal."""
        return visible(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record, without its traceback."""
        given = vars(record)
        whose = " ".join(f"{name}={given[name]}" for name in _WHOSE if name in given)
        return super().formatMessage(record) + (f" ({whose})" if whose else "")


class JsonFormatter(logging.Formatter):
    """One JSON object per message: ``time``, ``level``, ``logger``, ``message``; then what was given as
    ``extra``, such as ``workflow_id`` and ``run_id``; and ``error``, a traceback, where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _OWN}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return _encode(line).decode()


def log_to_stderr(level: Level = "info", format: Format = "text") -> None:
    """Send all logs of a level and above to stderr; stdout is for data."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if format == "json" else TextFormatter(TEXT))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
