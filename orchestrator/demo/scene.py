"""The moment to pull the plug: runs are inside an activity, in a wait, and in a manual review.

That moment is made, not hunted for. Most of it lasts: a review waits for a person, and a pick for the
forklift, which the demo holds (``World.held``). The wait alone passes. It begins when the demo lets go of the
bank, after all the rest is in place, so that one question about one run finds it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from orchestrator.client.client import Client
from orchestrator.demo.checks import EXPECTED, LONGEST_WAIT_MS, REVIEWED
from orchestrator.demo.evidence import failed_attempts
from orchestrator.demo.orders import OrderFulfilment
from orchestrator.errors import OrchestratorError, QueryFailed

POLL_S = 0.05
"""Well below the wait that passes, so that it is not missed."""

TIMEOUT_S = 120.0
"""The scene comes within seconds; a busy machine takes its time."""

MARGIN_MS = 700
"""The wait goes on for so long after it was found: time for the kill to arrive."""


class SceneMissed(OrchestratorError):
    """The runs did not come together in time."""


class Part(NamedTuple):
    """A part of the scene: in words, which run is in it, and who can tell whether it is."""

    words: str
    workflow_id: str
    is_set: Callable[[Client, str], Awaitable[bool]]


async def wait_until_set(client: Client, parts: Iterable[Part], check: Callable[[], None]) -> None:
    """Wait for one part of the scene after the other.

    Args:
        client: of the engine.
        parts: those that are set stay so while the others are waited for.
        check: raises if the engine has ended meanwhile.

    Raises:
        SceneMissed: a part was not set within ``TIMEOUT_S``.
    """
    for part in parts:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while not await part.is_set(client, part.workflow_id):
                    check()
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise SceneMissed(
                f"after {TIMEOUT_S:g} s {part.workflow_id} was not seen {part.words}, so the engine was not "
                "killed; the machine may be too busy, run the demo again"
            ) from None


async def _is_reviewed(client: Client, workflow_id: str) -> bool:
    try:
        status = await client.get_workflow_handle(workflow_id).query(OrderFulfilment.status)
    except QueryFailed:
        return False
    return status.startswith("manual review")


async def _is_retried(client: Client, workflow_id: str) -> bool:
    failed = failed_attempts(await client.history(workflow_id))
    expected = EXPECTED[workflow_id].retried
    return bool(failed) if expected is None else expected in failed


async def _picks(client: Client, workflow_id: str) -> bool:
    run = await client.get_workflow_handle(workflow_id).describe()
    return any(
        found.activity_type == "pick_items" and found.started_time_ms is not None
        for found in run.pending_activities
    )


async def _waits(client: Client, workflow_id: str) -> bool:
    run = await client.get_workflow_handle(workflow_id).describe()
    now_ms = time.time_ns() // 1_000_000  # after the answer, which takes its time on a busy machine
    return any(MARGIN_MS < timer.fire_time_ms - now_ms < LONGEST_WAIT_MS for timer in run.pending_timers)


LASTING = (
    Part("in manual review", REVIEWED, _is_reviewed),
    Part("with a failed attempt", "m-7732", _is_retried),
    Part("with a failed attempt", "o-1002", _is_retried),
    Part("inside an activity", "o-1004", _picks),
)
"""What stays as it is, and what has happened, whatever else goes on."""

PASSING = (Part("in a wait", "m-7731", _waits),)
"""What passes by itself."""


def in_words(parts: Iterable[Part]) -> str:
    """The scene, for people."""
    return "; ".join(f"{part.workflow_id} {part.words}" for part in parts)
