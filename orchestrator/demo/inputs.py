"""The input of the demo: one merchant, one order a line."""

from __future__ import annotations

from importlib.resources import files
from typing import TypeVar

import msgspec

from orchestrator.contrib.onboarding import Merchant
from orchestrator.contrib.orders import Order

T = TypeVar("T")


def merchants() -> list[Merchant]:
    """The lines of ``merchants.jsonl``."""
    return _lines("merchants.jsonl", Merchant)


def orders() -> list[Order]:
    """The lines of ``orders.jsonl``."""
    return _lines("orders.jsonl", Order)


def _lines(name: str, kind: type[T]) -> list[T]:
    text = files("orchestrator.demo").joinpath(name).read_text(encoding="utf-8")
    return [msgspec.json.decode(line, type=kind) for line in text.splitlines()]
