"""What ``orchestrator --version`` says."""

from __future__ import annotations

DISTRIBUTION = "kafka-orchestrator"


def version() -> str:
    """The version of the installed distribution."""
    from importlib import metadata

    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"
