"""Exit codes, and the one way to tell of an error."""

from __future__ import annotations

import os
import sys

from orchestrator import errors as e

OK = 0
ERROR = 1
USAGE = 2
NOT_FOUND = 4
WORKFLOW_FAILED = 5
TIMED_OUT = 124
INTERRUPTED = 130


class CommandUsage(e.UsageError):
    """The command line is not as it should be."""


class WaitTimedOut(e.Unavailable):
    """The workflow was still open when the time to wait for it was over."""


_CODES: tuple[tuple[type[e.OrchestratorError], int], ...] = (
    (e.WorkflowNotFound, NOT_FOUND),
    (e.UnknownName, NOT_FOUND),
    (e.WorkflowFailure, WORKFLOW_FAILED),
    (WaitTimedOut, TIMED_OUT),
    (e.DefinitionError, ERROR),
    (e.PayloadError, ERROR),
    (e.UsageError, USAGE),
    (e.OrchestratorError, ERROR),
)
"""Subclasses before their bases."""


def code_of(error: e.OrchestratorError) -> int:
    """The exit code that tells of an error."""
    return next(code for cls, code in _CODES if isinstance(error, cls))


def tell(message: str, code: int, hint: str = "") -> int:
    """Print an error on stderr; returns the code."""
    from orchestrator.codec.people import visible

    print(visible(f"error: {message}{f' ({hint})' if hint else ''}"), file=sys.stderr)
    return code


def hang_up() -> int:
    """Whoever read stdout has gone: write nothing more, not even what is still buffered."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ERROR
