from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.contrib import world
from orchestrator.contrib.world import FOLDER_VARIABLE, Effect, Execution, World, here


def effect(key: str, result: str = "done") -> Effect:
    return Effect(effect="charged", key=key, result=result, pid=1, time_ms=0)


def execution(key: str) -> Execution:
    return Execution(activity="charge", key=key, workflow_id="o-1", run_id="r", attempt=1, pid=1, time_ms=0)


def test_a_world_that_nobody_touched_is_empty(tmp_path: Path) -> None:
    world = World(tmp_path / "new")
    assert (world.executions(), world.effects()) == ([], [])


def test_a_key_has_one_effect_and_one_result(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert [world.once(effect("a", "first")), world.once(effect("a", "second"))] == ["first", "first"]
    assert world.once(effect("b", "third")) == "third"
    assert [known.key for known in World(tmp_path).effects()] == ["a", "b"]


def test_every_execution_is_noted(tmp_path: Path) -> None:
    for key in ("a", "a", "b"):
        World(tmp_path).note(execution(key))
    assert [known.key for known in World(tmp_path).executions()] == ["a", "a", "b"]


def test_a_line_that_a_killed_process_did_not_finish_never_was(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.once(effect("a"))
    with (tmp_path / "effects.jsonl").open("ab") as file:
        file.write(b'{"effect":"charged","key":"b","res')
    assert [known.key for known in world.effects()] == ["a"]
    assert world.once(effect("b", "whole")) == "whole"
    assert [known.key for known in world.effects()] == ["a", "b"]


async def test_a_thing_that_is_held_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "new"))
    monkeypatch.setattr(world, "LOOK_S", 0.0)
    with World(tmp_path / "new").held("bank"):
        waiting = asyncio.create_task(world.until_free("bank"))
        await asyncio.wait_for(world.until_free("forklift"), 5)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 5)


def test_a_thing_that_a_killed_process_held_can_be_held_and_let_go_again(tmp_path: Path) -> None:
    killed = World(tmp_path).held("bank")
    killed.__enter__()
    with World(tmp_path).held("bank"):
        assert World(tmp_path).is_held("bank")
    assert not World(tmp_path).is_held("bank")


def test_the_environment_says_where_the_world_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert here().folder == tmp_path
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert here().folder.is_absolute()
