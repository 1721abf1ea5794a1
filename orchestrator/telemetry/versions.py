"""Which versions run here: of this distribution, and of what its records and stores depend on."""

from __future__ import annotations

from functools import cache
from importlib import metadata
from platform import python_version
from typing import Final

DISTRIBUTION: Final = "kafka-orchestrator"

_BESIDE: Final = ("confluent-kafka", "fastavro", "rocksdict")


@cache
def version() -> str:
    """The version of the installed distribution; "" if it is not installed."""
    return _of(DISTRIBUTION)


def versions() -> dict[str, str]:
    """Of Python, and of the libraries that matter, by name."""
    return {"python": python_version(), **{name: _of(name) for name in _BESIDE}}


def _of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
