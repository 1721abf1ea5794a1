"""The activities of merchant onboarding: eleven steps, and what undoes those that leave something behind.

What goes wrong is written in the input, as with the test cards of payment providers:

=================================== ================================================================
an owner in ``SANCTIONED``           the sanctions check fails, and trying again would change nothing
a bank that is ``UNSTEADY_BANK``     the first try to open an account fails, the next one succeeds
an industry in ``RISKY_INDUSTRIES``  the merchant is refused after money has moved
a bank that is ``FROZEN_BANK``       an account there can never be closed again
=================================== ================================================================
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator import activity
from orchestrator.contrib import world
from orchestrator.errors import ApplicationError

SANCTIONED = frozenset({"Boris Badenov"})
UNSTEADY_BANK = "Unsteady Bank"
FROZEN_BANK = "Glacier Bank"
BANK = "bank"
"""Whoever holds it stops all transfers."""

RISKY_INDUSTRIES = {"gambling": 97}
RISK_LIMIT = 80
"""Of 100; above it a merchant is declined."""


@dataclass(frozen=True)
class Merchant:
    """Who wants to sell. ``reserve_settles_in_s``: how long the transfer of the reserve takes."""

    id: str
    name: str
    owner: str
    industry: str
    bank: str
    email: str
    reserve_cents: int
    reserve_settles_in_s: float


# --- the eleven steps ---


@activity.defn
async def fetch_kyc_document(merchant: Merchant) -> str:
    """Copy the owner's passport from the registry; returns the copy's id."""
    await world.work()
    return world.change("document copied", f"doc-{merchant.id}")


@activity.defn
async def verify_kyc_document(document: str) -> str:
    """Have the document verified; returns the id of the verification."""
    await world.work()
    return world.change("document verified", f"verified-{document}")


@activity.defn
async def check_sanctions(merchant: Merchant) -> None:
    """Look the owner up in the sanctions lists. A hit is final."""
    await world.work()
    if merchant.owner in SANCTIONED:
        raise ApplicationError("sanctions hit", merchant.owner, type="SanctionsHit", non_retryable=True)


@activity.defn
async def create_merchant(merchant: Merchant) -> str:
    """Create the merchant's record; returns its number."""
    await world.work()
    return world.change("merchant created", f"merchant-{merchant.id}")


@activity.defn
async def create_settlement_account(merchant: Merchant) -> str:
    """Open the account that the merchant is paid from; returns its number."""
    await world.work()
    if merchant.bank == UNSTEADY_BANK and world.is_first_execution():
        raise ConnectionError(f"{merchant.bank} closed the connection")
    return world.change("settlement account opened", f"account-{merchant.id}")


@activity.defn
async def fund_reserve(account: str, cents: int) -> str:
    """Move the reserve into the account; returns the transfer's id."""
    await world.work()
    await world.until_free(BANK)
    return world.change(f"reserve of {cents} cents moved", f"reserve-{account}")


@activity.defn
async def score_risk(merchant: Merchant) -> int:
    """How risky the merchant is, of 100. Above the limit the merchant is refused."""
    await world.work()
    score = RISKY_INDUSTRIES.get(merchant.industry, 12)
    if score > RISK_LIMIT:
        raise ApplicationError(
            f"risk score {score} is above {RISK_LIMIT}", type="RiskTooHigh", non_retryable=True
        )
    return score


@activity.defn
async def send_welcome_email(merchant: Merchant) -> None:
    """Say hello."""
    await world.work()
    world.change(f"welcome sent to {merchant.email}")


@activity.defn
async def seed_dashboard(merchant: Merchant) -> str:
    """Fill the merchant's dashboard with something to look at; returns its id."""
    await world.work()
    return world.change("dashboard seeded", f"dashboard-{merchant.id}")


@activity.defn
async def notify_sales(merchant: Merchant) -> None:
    """Tell the people who won this merchant."""
    await world.work()
    world.change(f"sales heard of {merchant.name}")


@activity.defn
async def activate_merchant(number: str) -> None:
    """From here on the merchant can sell."""
    await world.work()
    world.change(f"{number} activated")


# --- what undoes them: each is given what its step was given, and bears that there is nothing to undo ---


@activity.defn
async def delete_kyc_document(merchant: Merchant) -> None:
    """Undo :func:`fetch_kyc_document`: no copy of a passport is kept without a reason."""
    await world.work()
    world.undo(f"doc-{merchant.id}", "deleted")


@activity.defn
async def withdraw_verification(document: str) -> None:
    """Undo :func:`verify_kyc_document`."""
    await world.work()
    world.undo(f"verified-{document}", "withdrawn")


@activity.defn
async def remove_merchant(merchant: Merchant) -> None:
    """Undo :func:`create_merchant`."""
    await world.work()
    world.undo(f"merchant-{merchant.id}", "removed")


@activity.defn
async def close_settlement_account(merchant: Merchant) -> None:
    """Undo :func:`create_settlement_account`. Some banks do not let go."""
    await world.work()
    account = f"account-{merchant.id}"
    if merchant.bank == FROZEN_BANK and world.exists(account):
        raise ApplicationError(
            f"{merchant.bank} refuses to close {account}", type="AccountFrozen", non_retryable=True
        )
    world.undo(account, "closed")


@activity.defn
async def return_reserve(account: str, cents: int) -> None:
    """Undo :func:`fund_reserve`."""
    await world.work()
    world.undo(f"reserve-{account}", f"of {cents} cents returned")


@activity.defn
async def clear_dashboard(merchant: Merchant) -> None:
    """Undo :func:`seed_dashboard`."""
    await world.work()
    world.undo(f"dashboard-{merchant.id}", "cleared")
