from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.activity import ActivityDefinition, ActivityInfo, find_definitions
from orchestrator.activity.context import CURRENT, Cancellation, Context
from orchestrator.contrib import onboarding, orders, world
from orchestrator.demo import inputs
from orchestrator.demo.checks import UNDOES
from orchestrator.errors import ApplicationError

ROOT = Path(__file__).parent.parent.parent.parent

ALL = [*find_definitions(onboarding), *find_definitions(orders)]
READ_ONLY = {"check_sanctions", "score_risk"}

MERCHANT, BAD_MERCHANT, UNSTEADY_MERCHANT, RISKY_MERCHANT = inputs.merchants()
ORDER, SLOW_ORDER, DECLINED_ORDER, HEAVY_ORDER = inputs.orders()


@pytest.fixture(autouse=True)
def quick_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(world.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(world, "WORK_S", 0.0)
    return


async def attempt(definition: Any, *args: Any, number: int = 1, activity_id: int = 1) -> Any:
    """Run an activity as a worker does."""
    info = ActivityInfo(
        workflow_id="w",
        run_id="r",
        workflow_type="T",
        activity_id=activity_id,
        activity_type=getattr(definition, "name", definition),
        task_queue="default",
        attempt=number,
        scheduled_time_ms=0,
        started_time_ms=0,
    )
    token = CURRENT.set(Context(info, Cancellation(asyncio.get_running_loop())))
    try:
        return await definition.fn(*args)
    finally:
        CURRENT.reset(token)


def arguments(definition: ActivityDefinition) -> list[Any]:
    samples = {onboarding.Merchant: MERCHANT, orders.Order: ORDER, str: "x", int: 7}
    return [samples[hint] for hint in definition.parameter_hints]


def named(name: str) -> ActivityDefinition:
    return next(definition for definition in ALL if definition.name == name)


def test_onboarding_has_eleven_steps_and_what_undoes_them() -> None:
    names = {definition.name for definition in find_definitions(onboarding)}
    assert len(names - UNDOES.keys()) == 11
    assert {definition.name for definition in ALL} >= {*UNDOES, *UNDOES.values()}


@pytest.mark.parametrize("definition", ALL, ids=lambda definition: definition.name)
async def test_repeating_an_activity_changes_nothing_twice(definition: ActivityDefinition) -> None:
    results = [await attempt(definition, *arguments(definition), number=number) for number in (1, 2, 3)]
    assert results == [results[0]] * 3
    assert len(world.here().effects()) == (0 if definition.name in {*READ_ONLY, *UNDOES} else 1)
    assert [execution.attempt for execution in world.here().executions()] == [1, 2, 3]


@pytest.mark.parametrize("name", UNDOES)
async def test_what_undoes_a_step_takes_its_arguments_and_undoes_it_once(name: str) -> None:
    undo, step = named(name), named(UNDOES[name])
    assert undo.parameter_hints == step.parameter_hints
    await attempt(undo, *arguments(undo), activity_id=1)
    assert world.here().effects() == []
    await attempt(step, *arguments(step), activity_id=2)
    for number in (1, 2):
        await attempt(undo, *arguments(undo), number=number, activity_id=3)
    made, undone = world.here().effects()
    assert made.result in undone.effect


async def test_another_activity_has_an_effect_of_its_own() -> None:
    for activity_id in (1, 2):
        await attempt(named("reserve_inventory"), ORDER, activity_id=activity_id)
    assert [effect.key for effect in world.here().effects()] == ["r/1", "r/2"]


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("check_sanctions", [BAD_MERCHANT], "sanctions hit"),
        ("score_risk", [RISKY_MERCHANT], "risk score 97 is above 80"),
        ("charge_card", [DECLINED_ORDER], "card declined"),
    ],
)
async def test_what_fails_for_good(name: str, args: list[Any], message: str) -> None:
    with pytest.raises(ApplicationError, match=message) as caught:
        await attempt(named(name), *args)
    assert caught.value.non_retryable


async def test_some_banks_do_not_let_go() -> None:
    await attempt(named("create_settlement_account"), RISKY_MERCHANT)
    with pytest.raises(ApplicationError, match="refuses to close account-m-7733") as caught:
        await attempt(named("close_settlement_account"), RISKY_MERCHANT, activity_id=2)
    assert caught.value.non_retryable


async def test_an_unsteady_bank_fails_once() -> None:
    with pytest.raises(ConnectionError, match="Unsteady Bank closed the connection"):
        await attempt(named("create_settlement_account"), UNSTEADY_MERCHANT)
    assert await attempt(named("create_settlement_account"), UNSTEADY_MERCHANT, number=2) == "account-m-7732"


async def test_a_slow_card_hangs_once_and_a_card_that_is_down_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "HANG_S", 3_600.0)
    charge = named("charge_card")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(attempt(charge, SLOW_ORDER), 0.05)
    assert await attempt(charge, SLOW_ORDER, number=2) == "payment-o-1002"
    down = orders.Order("o", "x", 1, 1, orders.DOWN_CARD, "y")
    for number in (1, 2):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(attempt(charge, down, number=number, activity_id=9), 0.05)


@pytest.mark.parametrize("module", ["activities", "workflows"])
def test_a_user_s_own_module_wins(tmp_path: Path, module: str) -> None:
    """In a checkout too, where the folder ``activities`` stands beside the package."""
    (tmp_path / f"{module}.py").write_text("MINE = True")
    code = f"import {module}, orchestrator.contrib.onboarding; print({module}.MINE)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("True", "")
