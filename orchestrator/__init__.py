"""Durable execution for Python whose only infrastructure is Kafka.

::

    from orchestrator import activity, workflow      # what authors import
    from orchestrator import Client, Worker          # what programs import
    orchestrator.embedded(...)                       # everything in one process
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestrator.api.embedded import embedded as embedded
    from orchestrator.client.client import Client as Client
    from orchestrator.worker.worker import Worker as Worker

_PLACES = {
    "Client": "orchestrator.client.client",
    "Worker": "orchestrator.worker.worker",
    "embedded": "orchestrator.api.embedded",
}

__all__ = ["Client", "Worker", "embedded"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: an activity needs no HTTP, the CLI's help needs nothing."""
    if name not in _PLACES:
        raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PLACES[name]), name)
