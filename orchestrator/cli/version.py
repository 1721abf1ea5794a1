"""What ``orchestrator --version`` says."""

from __future__ import annotations


def version() -> str:
    """The version of the installed distribution."""
    from orchestrator.telemetry import versions

    return versions.version() or "unknown (not installed)"
