"""Merchant onboarding: eleven steps under one deadline, undone in reverse order if they cannot be finished.

Plain async Python. Kill the process anywhere in it: it goes on where it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

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
        """Each step is an activity, retried until it works, fails for good, or time is over."""
        async with Saga() as saga, asyncio.timeout(DEADLINE.total_seconds()):
            document = await saga.step(fetch_kyc_document, merchant, undo=delete_kyc_document)
            await saga.step(verify_kyc_document, document, undo=withdraw_verification)
            await saga.step(check_sanctions, merchant)

            number = await saga.step(create_merchant, merchant, undo=remove_merchant)
            account = await saga.step(create_settlement_account, merchant, undo=close_settlement_account)
            await saga.step(fund_reserve, account, merchant.reserve_cents, undo=return_reserve)
            await workflow.sleep(merchant.reserve_settles_in_s, summary="the reserve settles")

            risk_score = await saga.step(score_risk, merchant)
            await saga.step(send_welcome_email, merchant)
            await saga.step(seed_dashboard, merchant, undo=clear_dashboard)
            await saga.step(notify_sales, merchant)
            await saga.step(activate_merchant, number)
            return Onboarded(number, account, risk_score)
