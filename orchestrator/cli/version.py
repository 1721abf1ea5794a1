"""What ``orchestrator --version`` says."""

from __future__ import annotations

from orchestrator.telemetry import versions


def version() -> str:
    """The version of the installed distribution."""
    return versions.version() or "unknown (not installed)"
