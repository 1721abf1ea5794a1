"""Order fulfilment: a payment that may fail for good, a person who decides, and work in parallel.

The wait for that person may take days and survive any number of restarts. It is one line.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from orchestrator import workflow
from orchestrator.contrib.orders import (
    Order,
    charge_card,
    pick_items,
    print_label,
    release_inventory,
    reserve_inventory,
    send_invoice,
)
from orchestrator.demo.saga import Saga
from orchestrator.errors import ActivityFailure, ApplicationError

PAYMENT_ATTEMPT_S = 2.0
"""A payment that takes longer is given up, and tried again under the same idempotency key."""

PAYMENT_RETRIES = workflow.RetryPolicy(initial_interval=0.2, backoff_coefficient=2.0, maximum_attempts=3)

STEP_S = 30.0
"""For one attempt of any other step."""


@dataclass(frozen=True)
class Shipment:
    """An order on its way. ``payment``: the card payment, or the invoice that a person allowed."""

    payment: str
    package: str
    tracking: str


@workflow.defn
class OrderFulfilment:
    """Takes an order from the basket to the carrier."""

    def __init__(self) -> None:
        """Nobody has decided anything yet."""
        self._status = "new"
        self._approved: bool | None = None

    @workflow.run
    async def run(self, order: Order) -> Shipment:
        """Reserve, charge, then pick and print at the same time."""
        async with Saga() as saga:
            await self._reserve(order, saga)
            try:
                self._status = "payment"
                payment = await workflow.execute_activity(
                    charge_card,
                    order,
                    start_to_close_timeout=PAYMENT_ATTEMPT_S,
                    retry_policy=PAYMENT_RETRIES,
                )
            except ActivityFailure as failure:
                await saga.compensate()
                await self._manual_review(failure)
                await self._reserve(order, saga)
                payment = await workflow.execute_activity(send_invoice, order, start_to_close_timeout=STEP_S)

            self._status = "packing"
            package, tracking = await asyncio.gather(
                workflow.execute_activity(pick_items, order, start_to_close_timeout=STEP_S),
                workflow.execute_activity(print_label, order, start_to_close_timeout=STEP_S),
            )
            self._status = "shipped"
            return Shipment(payment, package, tracking)

    async def _reserve(self, order: Order, saga: Saga) -> None:
        self._status = "reserving"
        await saga.step(reserve_inventory, order, undo=release_inventory)

    async def _manual_review(self, failure: ActivityFailure) -> None:
        """Wait until somebody decides; return if the order may go on without its payment."""
        self._status = f"manual review: {failure.cause}"
        self._approved = None
        await workflow.wait_condition(lambda: self._approved is not None)
        if not self._approved:
            self._status = "rejected"
            raise ApplicationError("rejected in manual review", type="OrderRejected") from failure

    @workflow.signal
    def approve(self) -> None:
        """The order may go on, on an invoice."""
        self._approved = True

    @workflow.signal
    def reject(self) -> None:
        """The order ends here."""
        self._approved = False

    @workflow.query
    def status(self) -> str:
        """Where the order is, in words."""
        return self._status
