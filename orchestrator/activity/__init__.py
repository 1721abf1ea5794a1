"""What authors of activities import.

::

    from orchestrator import activity

    @activity.defn
    async def charge(order_id: str, cents: int) -> str:
        return await provider.charge(order_id, cents, key=activity.info().idempotency_key)
"""

from orchestrator.activity.context import (
    ActivityInfo,
    in_activity,
    info,
    is_cancelled,
    logger,
    wait_for_cancelled,
    wait_for_cancelled_sync,
)
from orchestrator.activity.definition import ActivityDefinition, definition_of, defn, find_definitions

__all__ = [
    "ActivityDefinition",
    "ActivityInfo",
    "definition_of",
    "defn",
    "find_definitions",
    "in_activity",
    "info",
    "is_cancelled",
    "logger",
    "wait_for_cancelled",
    "wait_for_cancelled_sync",
]
