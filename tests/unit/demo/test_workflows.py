"""What the demo does not show: cancellation, deadlines, a payment that never works, a rejection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator import Client, activity
from orchestrator.activity import ActivityDefinition, find_definitions
from orchestrator.client.handle import WorkflowHandle
from orchestrator.contrib import onboarding as onboarding_activities
from orchestrator.contrib import orders as order_activities
from orchestrator.contrib import world
from orchestrator.contrib.orders import DECLINED_CARD, DOWN_CARD, FORKLIFT, Order
from orchestrator.demo import inputs, onboarding, orders
from orchestrator.demo.checks import UNDOES
from orchestrator.demo.evidence import activity_types, failed_attempts
from orchestrator.demo.onboarding import MerchantOnboarding
from orchestrator.demo.orders import OrderFulfilment
from orchestrator.errors import ApplicationError, WorkflowFailure

MERCHANT = inputs.merchants()[0]


@pytest.fixture
async def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setenv(world.FOLDER_VARIABLE, str(tmp_path / "world"))
    monkeypatch.setattr(world, "WORK_S", 0.0)
    activities = [*find_definitions(onboarding_activities), *find_definitions(order_activities)]
    async with orchestrator.embedded(
        tmp_path / "data", workflows=[MerchantOnboarding, OrderFulfilment], activities=activities
    ) as connected:
        yield connected


def order(card: str) -> Order:
    return Order("o-1", "lamp", 1, 100, card, "Mill Lane 3")


async def steps(client: Client, workflow_id: str) -> list[str]:
    return list(activity_types(await client.history(workflow_id)).values())


async def status_is(handle: WorkflowHandle[Any], begins: str) -> None:
    while not (await handle.query(OrderFulfilment.status)).startswith(begins):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def waits_for_the_reserve(client: Client, workflow_id: str) -> None:
    """Besides the deadline, a timer runs."""
    while len((await client.get_workflow_handle(workflow_id).describe()).pending_timers) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


UNDO_RESERVE = [
    "return_reserve",
    "close_settlement_account",
    "remove_merchant",
    "withdraw_verification",
    "delete_kyc_document",
]


async def test_a_cancelled_onboarding_leaves_nothing_behind(client: Client) -> None:
    handle = await client.start_workflow(MerchantOnboarding.run, MERCHANT, id="m")
    await waits_for_the_reserve(client, "m")
    await handle.cancel("changed their mind")
    with pytest.raises(WorkflowFailure) as caught:
        await handle.result(20)
    assert caught.value.status == "Canceled"
    assert (await steps(client, "m"))[-5:] == UNDO_RESERVE


async def test_an_onboarding_beyond_its_deadline_leaves_nothing_behind(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onboarding, "DEADLINE", timedelta(seconds=1))
    handle = await client.start_workflow(MerchantOnboarding.run, MERCHANT, id="m")
    with pytest.raises(WorkflowFailure) as caught:
        await handle.result(20)
    assert caught.value.status == "Failed"
    assert (await steps(client, "m"))[-5:] == UNDO_RESERVE


UNDO = {step: undo for undo, step in UNDOES.items()}


class Bank:
    """All activities of the demo in name, with one that has its effect and then does not come to an end."""

    def __init__(self, stuck: str, *, completes: bool) -> None:
        self.stuck, self.completes, self.is_stuck = stuck, completes, asyncio.Event()
        self.effects: list[str] = []
        modules = (onboarding_activities, order_activities)
        self.activities = [self._activity(found) for module in modules for found in find_definitions(module)]

    def _activity(self, definition: ActivityDefinition) -> Any:
        name = definition.name

        @activity.defn(name=name)
        async def act(*args: object) -> object:
            self.effects.append(name)
            if name == self.stuck:
                self.is_stuck.set()
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    if not self.completes:
                        raise
            return {str: name, int: 12}.get(definition.return_hint)

        return act


@pytest.mark.parametrize("completes", [False, True], ids=["ends", "completes"])
@pytest.mark.parametrize("stuck", ["create_merchant", "fund_reserve", "seed_dashboard", "notify_sales"])
async def test_whatever_step_of_an_onboarding_is_cancelled_is_undone(
    tmp_path: Path, stuck: str, completes: bool
) -> None:
    bank = Bank(stuck, completes=completes)
    merchant = replace(MERCHANT, reserve_settles_in_s=0.0)
    async with orchestrator.embedded(
        tmp_path, workflows=[MerchantOnboarding], activities=bank.activities
    ) as client:
        handle = await client.start_workflow(MerchantOnboarding.run, merchant, id="m")
        await asyncio.wait_for(bank.is_stuck.wait(), 20)
        await handle.cancel()
        with pytest.raises(WorkflowFailure) as caught:
            await handle.result(20)
    assert caught.value.status == "Canceled"
    steps = bank.effects[: bank.effects.index(stuck) + 1]
    assert bank.effects[len(steps) :] == [UNDO[step] for step in reversed(steps) if step in UNDO]


async def test_a_step_under_way_at_the_deadline_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onboarding, "DEADLINE", timedelta(seconds=0.5))
    bank = Bank("create_settlement_account", completes=False)
    async with orchestrator.embedded(
        tmp_path, workflows=[MerchantOnboarding], activities=bank.activities
    ) as client:
        with pytest.raises(WorkflowFailure) as caught:
            await client.execute_workflow(MerchantOnboarding.run, MERCHANT, id="m")
    assert caught.value.status == "Failed"
    assert bank.effects[-4:] == UNDO_RESERVE[1:]


async def test_an_order_cancelled_while_it_reserves_holds_no_inventory(tmp_path: Path) -> None:
    bank = Bank("reserve_inventory", completes=False)
    async with orchestrator.embedded(
        tmp_path, workflows=[OrderFulfilment], activities=bank.activities
    ) as client:
        handle = await client.start_workflow(OrderFulfilment.run, order("4242"), id="o")
        await asyncio.wait_for(bank.is_stuck.wait(), 20)
        await handle.cancel()
        with pytest.raises(WorkflowFailure) as caught:
            await handle.result(20)
    assert caught.value.status == "Canceled"
    assert bank.effects == ["reserve_inventory", "release_inventory"]


async def test_a_declined_card_is_tried_once_and_then_reviewed(client: Client) -> None:
    handle = await client.start_workflow(OrderFulfilment.run, order(DECLINED_CARD), id="o")
    await status_is(handle, "manual review: card declined")
    assert await steps(client, "o") == ["reserve_inventory", "charge_card", "release_inventory"]
    await handle.signal(OrderFulfilment.approve)
    assert (await handle.result(20)).payment == "invoice-o-1"
    assert await handle.query(OrderFulfilment.status) == "shipped"
    assert (await steps(client, "o"))[3:] == [
        "reserve_inventory", "send_invoice", "pick_items", "print_label",
    ]  # fmt: skip


async def test_a_payment_that_hangs_is_given_up_after_three_attempts(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "PAYMENT_ATTEMPT_S", 0.1)
    monkeypatch.setattr(order_activities, "HANG_S", 0.3)
    handle = await client.start_workflow(OrderFulfilment.run, order(DOWN_CARD), id="o")
    await status_is(handle, "manual review")
    failed = failed_attempts(await client.history("o"))
    assert [name for name, _ in failed] == ["charge_card", "charge_card"]
    assert [e.attempt for e in world.here().executions() if e.activity == "charge_card"] == [1, 2, 3]
    assert not [e for e in world.here().effects() if "charged" in e.effect]


async def test_a_rejected_order_ends_and_holds_no_inventory(client: Client) -> None:
    handle = await client.start_workflow(OrderFulfilment.run, order(DECLINED_CARD), id="o")
    await status_is(handle, "manual review")
    await handle.signal(OrderFulfilment.reject)
    with pytest.raises(WorkflowFailure) as caught:
        await handle.result(20)
    assert isinstance(caught.value.cause, ApplicationError)
    assert (caught.value.cause.type, caught.value.cause.message) == (
        "OrderRejected", "rejected in manual review",
    )  # fmt: skip
    assert await steps(client, "o") == ["reserve_inventory", "charge_card", "release_inventory"]


async def test_a_cancelled_order_releases_its_inventory(client: Client) -> None:
    heavy = inputs.orders()[3]
    with world.here().held(FORKLIFT):
        handle = await client.start_workflow(OrderFulfilment.run, heavy, id="o")
        await status_is(handle, "packing")
        await handle.cancel()
        with pytest.raises(WorkflowFailure) as caught:
            await handle.result(20)
    assert caught.value.status == "Canceled"
    assert (await steps(client, "o"))[-1] == "release_inventory"


async def test_picking_and_the_label_are_asked_for_at_once(client: Client) -> None:
    await client.execute_workflow(OrderFulfilment.run, order("4242"), id="o")
    history = await client.history("o")
    turns = [[getattr(event, "activity_type", "") for event in turn.events] for turn in history.turns]
    assert any({"pick_items", "print_label"} <= set(names) for names in turns)
