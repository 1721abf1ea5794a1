"""Logging of the command line's roles: to stderr, one line per message."""

from __future__ import annotations

import logging
import sys

FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"

QUIET = ("uvicorn", "httpx", "httpcore")
"""Libraries that tell of every request and connection: heard from warnings on."""


def log_to_stderr(level: str = "info") -> None:
    """Send all logs of a level and above to stderr; stdout is for data."""
    logging.basicConfig(stream=sys.stderr, format=FORMAT, level=level.upper(), force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
