"""Code with a bug, or that does not follow its history, blocks its run; another deploy lets it go on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.client.client import Client
from orchestrator.protocol.views import RunDescription
from tests.e2e.dev_process import Dev, command

PATIENCE_S = 60

ACTIVITIES = """
from orchestrator import activity


@activity.defn
async def add_one(number: int) -> int:
    return number + 1


@activity.defn
async def add_two(number: int) -> int:
    return number + 2
"""

WORKFLOWS = """
from activities import add_one, add_two
from orchestrator import workflow

PRICES = {{"tea": 3}}


@workflow.defn
class Sale:
    def __init__(self):
        self.paid = False

    @workflow.run
    async def run(self, what: str) -> int:
        number = await workflow.execute_activity({activity}, 1, start_to_close_timeout=30)
        await workflow.wait_condition(lambda: self.paid)
        return number + {price}

    @workflow.signal
    def pay(self) -> None:
        self.paid = True
"""

BUGGY = WORKFLOWS.format(activity="add_one", price="PRICES[what]")
FIXED = WORKFLOWS.format(activity="add_one", price="PRICES.get(what, 10)")
CHANGED = WORKFLOWS.format(activity="add_two", price="PRICES.get(what, 10)")


def deploy(folder: Path, workflows: str) -> None:
    (folder / "activities.py").write_text(ACTIVITIES)
    (folder / "workflows.py").write_text(workflows)


@asynccontextmanager
async def running(folder: Path, workflows: str) -> AsyncIterator[tuple[Client, str]]:
    """``orchestrator dev`` with this version of the code, until the block ends."""
    deploy(folder, workflows)
    dev = await asyncio.to_thread(Dev, folder)
    try:
        async with await Client.connect(dev.address) as client:
            yield client, dev.address
        assert await asyncio.to_thread(dev.stop, signal.SIGTERM) == 0
    finally:
        await asyncio.to_thread(dev.close)


async def described(client: Client, id: str, wanted: Callable[[RunDescription], bool]) -> RunDescription:
    """The run's description, once it is as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(found := await client.get_workflow_handle(id).describe()):  # noqa: ASYNC110 (it is elsewhere)
            await asyncio.sleep(0.02)
    return found


async def told(folder: Path, address: str, *arguments: str) -> str:
    """What the command line says."""
    done = await asyncio.to_thread(command, *arguments, folder=folder, address=address)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_blocked(found: RunDescription) -> bool:
    return found.blocked is not None


@pytest.mark.timeout(180)
async def test_a_bug_blocks_its_run_until_it_is_fixed(tmp_path: Path) -> None:
    async with running(tmp_path, BUGGY) as (client, address):
        cake = await client.start_workflow("Sale", "cake", id="cake")
        await cake.signal("pay")
        found = await described(client, "cake", is_blocked)
        assert found.row.status == "Blocked"
        assert found.blocked is not None
        assert "KeyError" in f"{found.blocked.type} {found.blocked.message}"
        assert "PRICES[what]" in found.blocked.stack
        tea = await client.start_workflow("Sale", "tea", id="tea")  # others go on
        await tea.signal("pay")
        assert await tea.result() == 5
        assert (
            await told(tmp_path, address, "workflow", "list", "--status", "Blocked", "-o", "ids") == "cake\n"
        )
        said = await told(tmp_path, address, "workflow", "describe", "cake")
        assert "Blocked" in said
        assert "PRICES[what]" in said
    async with running(tmp_path, FIXED) as (client, _):  # it goes on by itself
        assert await client.get_workflow_handle("cake").result(timeout=PATIENCE_S) == 12
        found = await client.get_workflow_handle("cake").describe()
        assert found.blocked is None
        history = await client.history("cake")
        names = [type(event).__name__ for turn in history.turns for event in turn.events]
        assert names.count("WorkflowBlocked") == 1
        assert names.count("ActivityCompleted") == 1


@pytest.mark.timeout(180)
async def test_code_that_leaves_its_history_is_blocked_until_the_change_is_taken_back(tmp_path: Path) -> None:
    async with running(tmp_path, FIXED) as (client, _):
        await client.start_workflow("Sale", "cake", id="cake")
        await described(client, "cake", lambda found: not found.pending_activities)
    async with running(tmp_path, CHANGED) as (client, address):
        await client.get_workflow_handle("cake").signal("pay")
        found = await described(client, "cake", is_blocked)
        assert found.blocked is not None
        assert "add_one" in found.blocked.message, "what was expected"
        assert "add_two" in found.blocked.message, "what was found"
        said = await told(tmp_path, address, "workflow", "describe", "cake")
        assert "add_one" in said
        assert "add_two" in said
        new = await client.start_workflow("Sale", "cake", id="new")
        await new.signal("pay")
        assert await new.result() == 13
    async with running(tmp_path, FIXED) as (client, _):
        assert await client.get_workflow_handle("cake").result(timeout=PATIENCE_S) == 12
