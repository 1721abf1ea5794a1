"""``orchestrator dev`` with runs in all the states that a page shows."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from urllib.parse import quote

from orchestrator import config
from orchestrator.client.client import Client
from orchestrator.client.handle import WorkflowHandle
from orchestrator.contrib.world import FOLDER_VARIABLE
from orchestrator.demo.inputs import merchants, orders
from orchestrator.demo.onboarding import MerchantOnboarding
from orchestrator.demo.orders import OrderFulfilment
from orchestrator.demo.processes import Process, client_of, free_port
from orchestrator.demo.stage import MODULES
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import RunDescription
from tests.browser.workflows import Broken, Conversation, Parcel, Unserved

ROOT = Path(__file__).parent.parent.parent

OURS = "tests.browser.workflows"

STATE_S = 60.0
"""Each state comes within seconds; a busy machine takes its time."""

LOOK_S = 0.05

HOSTILE = '"><img src=x onerror="document.title=1">'
"""An id, a payload and a signal that would like to be more than text."""

DONE, REVIEWED, FAILED, DEFERRED = "o-1001", "o-1003", "m-9001-BAD", "m-7733"
RETRIED, BLOCKED, UNSERVED = "parcel-1", "broken-1", "scales-1"


class Stage:
    """A process, a client of it, and the runs of :meth:`play`."""

    client: Client

    def __init__(self, folder: Path, *options: str) -> None:
        """Nothing is started yet; ``options`` are more of ``orchestrator dev``."""
        self.port = free_port(0)
        self.address = f"http://{config.HOST}:{self.port}"
        self.process = Process(
            "engine",
            ("dev", *MODULES, OURS, "--data", str(folder), "--port", str(self.port), *options),
            folder / "engine.log",
            {FOLDER_VARIABLE: str(folder / "world"), "PYTHONPATH": str(ROOT)},
        )

    async def start(self) -> None:
        """Start the process, or another one on the same folder and port."""
        await self.process.start()
        self.client = await client_of(self.process, self.address)

    async def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        await self.client.close()
        await self.process.stop()

    async def play(self) -> None:
        """Start the runs that all may look at, and nobody may change; return when each is in its state."""
        await self.play_demo((DONE, REVIEWED, FAILED, DEFERRED))
        await self.play_trouble()
        hostile = await self.client.start_workflow(Conversation.run, {"html": HOSTILE}, id=HOSTILE)
        await hostile.signal("say", HOSTILE)
        for workflow_id, is_there in _STATES.items():
            await self.until(workflow_id, is_there)

    async def play_demo(self, ids: Collection[str] = ()) -> None:
        """Start runs of the demo's input, all or some; return when those of them have ended that will."""
        started = []
        for order in orders():
            if not ids or order.id in ids:
                started.append(await self.client.start_workflow(OrderFulfilment.run, order, id=order.id))
        for merchant in merchants():
            if not ids or merchant.id in ids:
                run = await self.client.start_workflow(MerchantOnboarding.run, merchant, id=merchant.id)
                started.append(run)
        for handle in started:
            if handle.id != REVIEWED:
                await handle.closed()
        await self.until(REVIEWED, _STATES[REVIEWED])

    async def play_trouble(self) -> None:
        """Start runs that do not get on; return when each is in its state."""
        start = self.client.start_workflow
        await start(Parcel.run, "p-1", id=RETRIED)
        await start(Broken.run, id=BLOCKED)
        await start(Unserved.run, id=UNSERVED)
        for workflow_id in (RETRIED, BLOCKED, UNSERVED):
            await self.until(workflow_id, _STATES[workflow_id])

    async def converse(self, workflow_id: str) -> WorkflowHandle[list[object]]:
        """A run of a test's own, which takes signals and answers a query."""
        return await self.client.start_workflow(Conversation.run, "hello", id=workflow_id)

    async def until(self, workflow_id: str, is_there: Callable[[RunDescription], bool]) -> None:
        """Wait until a run is in a state."""
        handle = self.client.get_workflow_handle(workflow_id)

        async def look() -> bool:
            return is_there(await handle.describe())

        await wait_until(look, f"the state of {workflow_id}")


async def address_of(client: Client, workflow_id: str) -> str:
    """The path of the page of an id's latest run."""
    found = await client.get_workflow_handle(workflow_id).describe()
    return f"/workflows/{quote(workflow_id, safe='')}/{found.row.run_id}"


async def wait_until(look: Callable[[], Awaitable[bool]], words: str) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: it is not, after a long time.
    """
    try:
        async with asyncio.timeout(STATE_S):
            while True:
                if await look():
                    return
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise AssertionError(f"waited {STATE_S:g} s in vain for {words}") from None


def _closed(status: WorkflowStatus) -> Callable[[RunDescription], bool]:
    return lambda run: run.row.status is status


_STATES: dict[str, Callable[[RunDescription], bool]] = {
    DONE: _closed(WorkflowStatus.COMPLETED),
    FAILED: _closed(WorkflowStatus.FAILED),
    DEFERRED: _closed(WorkflowStatus.FAILED),
    REVIEWED: lambda run: run.row.history_events >= 7 and not run.pending_activities,
    RETRIED: lambda run: run.row.attempt > 5,
    BLOCKED: lambda run: run.blocked is not None,
    UNSERVED: lambda run: bool(run.pending_activities),
    HOSTILE: lambda run: run.row.history_events >= 2,
}
