"""A store that is deleted or damaged is rebuilt from the log; a damaged log is an error."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

import orchestrator
from orchestrator import activity, workflow
from orchestrator.client.client import Client
from orchestrator.errors import ConfigError, LogError, Unavailable
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.store.partition_store import StoreDamaged

COMPLETED, OPEN = 24, 4

POSITIONS = range(20)
"""Seeds of what is damaged where."""

MAX_RESTARTS = 4
"""Damage that is found by a read ends the engine; each partition may have some."""


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn
class Adds:
    def __init__(self) -> None:
        self.more = 0

    @workflow.run
    async def run(self, number: int) -> int:
        result = await workflow.execute_activity(double, number, start_to_close_timeout=30)
        await workflow.wait_condition(lambda: self.more > 0 or number < COMPLETED)
        return result + self.more

    @workflow.signal
    def add(self, more: int) -> None:
        self.more += more


@asynccontextmanager
async def engine_of(folder: Path) -> AsyncIterator[Client]:
    async with orchestrator.embedded(folder, workflows=[Adds], activities=[double]) as client:
        yield client


async def answers(client: Client) -> dict[str, Any]:
    """Everything that the read side and the engine have to say."""
    rows = [row async for row in client.list_workflows()]
    found: dict[str, Any] = {"rows": rows}
    for row in rows:
        handle = client.get_workflow_handle(row.workflow_id, result_type=int)
        result = await handle.result() if row.close_time_ms is not None else None
        found[row.workflow_id] = (await handle.describe(), await client.history(row.workflow_id), result)
    return found


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A data folder, as a kill would leave it, in ``crashed``, and after a clean stop, in ``data``."""
    folder = tmp_path_factory.mktemp("original")

    async def make() -> dict[str, Any]:
        async with engine_of(folder / "data") as client:
            await asyncio.gather(
                *(client.execute_workflow(Adds.run, n, id=f"a-{n}") for n in range(COMPLETED // 2))
            )
        async with engine_of(folder / "data") as client:
            await asyncio.gather(
                *(client.execute_workflow(Adds.run, n, id=f"a-{n}") for n in range(COMPLETED // 2, COMPLETED))
            )
            opened = [
                await client.start_workflow(Adds.run, n, id=f"a-{n}")
                for n in range(COMPLETED, COMPLETED + OPEN)
            ]
            for handle in opened:
                while (await handle.describe()).pending_activities:  # noqa: ASYNC110 (the engine is in other threads)
                    await asyncio.sleep(0.005)
            found = await answers(client)
            await asyncio.to_thread(shutil.copytree, folder / "data", folder / "crashed")
            return found

    return folder, asyncio.run(make())


def copy(original: tuple[Path, dict[str, Any]], tmp_path: Path, name: str = "data") -> Path:
    folder = tmp_path / "data"
    shutil.copytree(original[0] / name, folder)
    return folder


async def expect_the_same(folder: Path, expected: dict[str, Any]) -> None:
    """Start the engine, again if it ends because a read found damage; everything is as it was."""
    for _ in range(MAX_RESTARTS):
        try:
            async with engine_of(folder) as client:
                assert await answers(client) == expected
                for number in range(COMPLETED, COMPLETED + OPEN):
                    handle = client.get_workflow_handle(f"a-{number}", result_type=int)
                    await handle.signal(Adds.add, 1)
                    assert await handle.result() == 2 * number + 1
                return
        except (StoreDamaged, Unavailable) as error:
            if "damaged" not in str(error):
                raise
    pytest.fail("the store was not rebuilt")


class TestStore:
    @pytest.mark.parametrize("what", ["store", "store/00000", "store/00002", "store/00001/CURRENT"])
    async def test_deleted(self, original: tuple[Path, dict[str, Any]], tmp_path: Path, what: str) -> None:
        folder = copy(original, tmp_path)
        gone = folder / what
        if gone.is_dir():
            shutil.rmtree(gone)
        else:
            gone.unlink()
        await expect_the_same(folder, original[1])

    @pytest.mark.parametrize("seed", POSITIONS)
    async def test_damaged(self, original: tuple[Path, dict[str, Any]], tmp_path: Path, seed: int) -> None:
        random = Random(seed)
        folder = copy(original, tmp_path, ("data", "crashed")[seed % 2])
        done = [damage(random, folder / "store") for _ in range(3)]
        print(done)
        await expect_the_same(folder, original[1])

    async def test_of_another_log(self, original: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
        async with engine_of(tmp_path / "other") as client:
            await client.execute_workflow(Adds.run, 7, id="elsewhere")
        folder = copy(original, tmp_path)
        shutil.rmtree(folder / "store")
        shutil.copytree(tmp_path / "other" / "store", folder / "store")
        await expect_the_same(folder, original[1])


def damage(random: Random, folder: Path) -> str:
    """Flip bytes of a file, cut it, or delete it. Weighted towards files with data."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "LOCK")
    data = [path for path in files if path.suffix in (".sst", ".log") and path.stat().st_size]
    path = random.choice(data if data and random.random() < 0.7 else files)
    size = path.stat().st_size
    kind = random.choice(["flip", "flip", "cut", "delete"])
    if kind == "delete" or not size:
        path.unlink()
        return f"deleted {path}"
    place = random.randrange(size)
    content = bytearray(path.read_bytes())
    if kind == "cut":
        path.write_bytes(content[:place])
        return f"cut {path} at {place} of {size}"
    for at in range(place, min(size, place + 16)):
        content[at] ^= 0xFF
    path.write_bytes(content)
    return f"flipped {path} at {place} of {size}"


class TestLog:
    async def test_deleted(self, original: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
        folder = copy(original, tmp_path)
        shutil.rmtree(folder / "log")
        with pytest.raises(ConfigError, match="restore the folder from a copy"):
            async with engine_of(folder):
                pass

    async def test_a_part_of_it_is_gone(self, original: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
        """What RocksDB does not miss, the store does: it has seen more."""
        folder = copy(original, tmp_path, "crashed")
        newest = max((folder / "log").glob("*.log"))
        newest.write_bytes(b"")
        with pytest.raises(ConfigError, match="has lost history"):
            async with engine_of(folder):
                pass

    @pytest.mark.parametrize("seed", POSITIONS)
    async def test_damaged_and_read_from_its_beginning(
        self, original: tuple[Path, dict[str, Any]], tmp_path: Path, seed: int
    ) -> None:
        """Damage is an error, or was where nothing of interest is; history is never a shorter one."""
        folder = copy(original, tmp_path)
        with EmbeddedLog(folder):
            pass  # now everything is in files with checksums
        shutil.rmtree(folder / "store")
        random = Random(100 + seed)
        tables = sorted((folder / "log").glob("*.sst"))
        path = random.choice(tables)
        content = bytearray(path.read_bytes())
        place = random.randrange(len(content))
        content[place] ^= 0xFF
        path.write_bytes(content)
        try:
            async with engine_of(folder) as client:
                assert (await answers(client)) == original[1]
        except (ConfigError, LogError, Unavailable) as error:
            if str(folder / "log") not in str(error):
                raise
