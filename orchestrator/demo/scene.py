"""The moment to pull the plug: runs are inside an activity, in a wait, and in a manual review."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.client.client import Client
from orchestrator.client.handle import WorkflowHandle
from orchestrator.contrib.orders import HEAVY_PICK_S
from orchestrator.demo.checks import EXPECTED, LONGEST_WAIT_MS, REVIEWED
from orchestrator.demo.evidence import failed_attempts
from orchestrator.demo.orders import OrderFulfilment
from orchestrator.errors import OrchestratorError, QueryFailed
from orchestrator.protocol.views import RunDescription

POLL_S = 0.05
"""Well below the shortest wait in the demo's workflows, so that no moment is missed."""

TIMEOUT_S = 60.0
"""The scene comes within seconds, on a busy machine too."""

MARGIN_MS = 700
"""What is in the scene stays in it for so long: time for the kill to arrive."""


class SceneMissed(OrchestratorError):
    """The runs did not come together in time."""


async def wait_until_set(
    client: Client, runs: Sequence[WorkflowHandle[Any]], check: Callable[[], None]
) -> str:
    """Wait until all parts of the scene are there at the same moment; returns it in words.

    Args:
        client: of the engine.
        runs: the runs of the demo.
        check: raises if the engine has ended meanwhile.

    Raises:
        SceneMissed: they were not, within ``TIMEOUT_S``.
    """
    missing: list[str] = []
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                check()
                found = await _look(client, runs)
                missing = [part for part, seen in found.items() if not seen]
                if not missing:
                    return "; ".join(f"{part}: {', '.join(seen)}" for part, seen in found.items())
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise SceneMissed(
            f"after {TIMEOUT_S:g} s the engine could not be killed in the right moment, for there was no run "
            f"{' and none '.join(missing)}; the machine may be too busy, run the demo again"
        ) from None


async def _look(client: Client, runs: Sequence[WorkflowHandle[Any]]) -> dict[str, list[str]]:
    """By part of the scene, the ids of the runs that are in it."""
    seen = await asyncio.gather(*(run.describe() for run in runs))
    reviewed = [REVIEWED] if await _is_reviewed(client) else []
    retried = [name for name, want in EXPECTED.items() if want.retried and await _retried(client, name)]
    now_ms = time.time_ns() // 1_000_000  # after all answers, which take their time on a busy machine
    return {
        "inside an activity": [run.row.workflow_id for run in seen if _works(run, now_ms)],
        "in a wait": [run.row.workflow_id for run in seen if _waits(run, now_ms)],
        "in manual review": reviewed,
        "retried": retried,
    }


def _works(run: RunDescription, now_ms: int) -> bool:
    """Whether it picks something heavy, and goes on doing so for a while."""
    return any(
        found.activity_type == "pick_items"
        and found.started_time_ms is not None
        and found.started_time_ms + HEAVY_PICK_S * 1_000 - now_ms > MARGIN_MS
        for found in run.pending_activities
    )


def _waits(run: RunDescription, now_ms: int) -> bool:
    return any(MARGIN_MS < timer.fire_time_ms - now_ms < LONGEST_WAIT_MS for timer in run.pending_timers)


async def _is_reviewed(client: Client) -> bool:
    try:
        status = await client.get_workflow_handle(REVIEWED).query(OrderFulfilment.status)
    except QueryFailed:
        return False
    return status.startswith("manual review")


async def _retried(client: Client, workflow_id: str) -> bool:
    return EXPECTED[workflow_id].retried in failed_attempts(await client.history(workflow_id))
