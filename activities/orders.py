"""The activities of order fulfilment.

What goes wrong is written in the input, as with the test cards of payment providers: ``DECLINED_CARD``
is never accepted, a payment with ``SLOW_CARD`` hangs once, one with ``DOWN_CARD`` always, and a
``HEAVY_SKU`` is picked with the ``FORKLIFT``, which somebody may hold.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from orchestrator import activity
from orchestrator.contrib import world
from orchestrator.errors import ApplicationError

DECLINED_CARD = "4000-0000-0000-0002"
SLOW_CARD = "4000-0000-0000-0259"
DOWN_CARD = "4000-0000-0000-0119"
HEAVY_SKU = "piano"
FORKLIFT = "forklift"

HANG_S = 30.0
"""How long a payment hangs: far longer than anybody waits for it."""


@dataclass(frozen=True)
class Order:
    """What somebody wants to have, and how it is paid."""

    id: str
    sku: str
    quantity: int
    cents: int
    card: str
    address: str


@activity.defn
async def reserve_inventory(order: Order) -> str:
    """Put the goods aside; returns the id of the reservation."""
    await world.work()
    return world.change(f"{order.quantity} {order.sku} reserved", f"reservation-{order.id}")


@activity.defn
async def release_inventory(order: Order) -> None:
    """Undo :func:`reserve_inventory`, if anything was reserved."""
    await world.work()
    world.undo(f"reservation-{order.id}", "released")


@activity.defn
async def charge_card(order: Order) -> str:
    """Take the money; returns the payment's id. A declined card is final."""
    await world.work()
    if order.card == DECLINED_CARD:
        raise ApplicationError("card declined", type="CardDeclined", non_retryable=True)
    if order.card == DOWN_CARD or (order.card == SLOW_CARD and world.is_first_execution()):
        await asyncio.sleep(HANG_S)
        raise ConnectionError("the payment provider did not answer")
    return world.change(f"{order.cents} cents charged", f"payment-{order.id}")


@activity.defn
async def send_invoice(order: Order) -> str:
    """Ask for the money by letter, when somebody decided that this customer may; returns its id."""
    await world.work()
    return world.change(f"invoice of {order.cents} cents sent", f"invoice-{order.id}")


@activity.defn
async def pick_items(order: Order) -> str:
    """Fetch the goods from the shelves; returns the id of the package."""
    await world.work()
    if order.sku == HEAVY_SKU:
        await world.until_free(FORKLIFT)
    return world.change(f"{order.quantity} {order.sku} picked", f"package-{order.id}")


@activity.defn
async def print_label(order: Order) -> str:
    """Have the carrier's label made; returns its tracking number."""
    await world.work()
    return world.change(f"label printed for {order.address}", f"tracking-{order.id}")
