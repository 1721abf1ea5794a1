"""Merchant onboarding: eleven steps under one deadline, undone in reverse order if they cannot be finished.

Plain async Python. Kill the process anywhere in it: it goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, TypeVarTuple

from orchestrator import workflow
from orchestrator.contrib.onboarding import (
    Merchant,
    activate_merchant,
    check_sanctions,
    clear_dashboard,
    close_settlement_account,
    create_merchant,
    create_settlement_account,
    delete_kyc_document,
    fetch_kyc_document,
    fund_reserve,
    notify_sales,
    remove_merchant,
    return_reserve,
    score_risk,
    seed_dashboard,
    send_welcome_email,
    verify_kyc_document,
    withdraw_verification,
)
from orchestrator.demo.saga import Saga

DEADLINE = timedelta(hours=1)
"""For all steps together. What undoes them has a time of its own."""

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


@dataclass(frozen=True)
class Onboarded:
    """A merchant who can sell."""

    merchant: str
    account: str
    risk_score: int


@workflow.defn
class MerchantOnboarding:
    """Takes a merchant from an application to the first sale, or leaves nothing behind."""

    @workflow.run
    async def run(self, merchant: Merchant) -> Onboarded:
        """Each step is an activity, retried until it works or fails for good."""
        async with Saga() as saga, asyncio.timeout(DEADLINE.total_seconds()):
            document = await step(fetch_kyc_document, merchant)
            saga.on_failure(delete_kyc_document, document)
            verification = await step(verify_kyc_document, document)
            saga.on_failure(withdraw_verification, verification)
            await step(check_sanctions, merchant)

            number = await step(create_merchant, merchant)
            saga.on_failure(remove_merchant, number)
            account = await step(create_settlement_account, merchant)
            saga.on_failure(close_settlement_account, account, merchant.bank)
            transfer = await step(fund_reserve, account, merchant.reserve_cents)
            saga.on_failure(return_reserve, transfer)
            await workflow.sleep(merchant.reserve_settles_in_s, summary="the reserve settles")

            risk_score = await step(score_risk, merchant)
            await step(send_welcome_email, merchant)
            dashboard = await step(seed_dashboard, merchant)
            saga.on_failure(clear_dashboard, dashboard)
            await step(notify_sales, merchant)
            await step(activate_merchant, number)
            return Onboarded(number, account, risk_score)


async def step(activity: Callable[[*Ts], Coroutine[Any, Any, R]], *args: *Ts) -> R:
    """One step: an attempt may take ten seconds, and there is no limit to their number but the deadline."""
    return await workflow.execute_activity(activity, *args, start_to_close_timeout=10)
