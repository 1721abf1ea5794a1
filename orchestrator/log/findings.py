"""What a check-up finds, for people and programs."""

from __future__ import annotations

from typing import Literal, NamedTuple

from orchestrator.errors import OrchestratorError


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        state: ``failed``: work cannot be done; ``warning``: somebody should look.
        what: was looked at, in a word or two.
        found: how it is.
        advice: what to do; "" if nothing is.
    """

    state: Literal["ok", "warning", "failed"]
    what: str
    found: str
    advice: str = ""


def ok(what: str, found: str) -> Finding:
    """All is well."""
    return Finding("ok", what, found)


def warning(what: str, found: str, advice: str) -> Finding:
    """Somebody should look."""
    return Finding("warning", what, found, advice)


def failed(what: str, error: OrchestratorError) -> Finding:
    """Work cannot be done. The last part of a message of ours says what to do."""
    found, _, advice = str(error).rpartition("; ")
    return Finding("failed", what, found or advice, advice if found else "")
