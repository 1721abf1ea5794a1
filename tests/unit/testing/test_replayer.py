from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from orchestrator import workflow
from orchestrator.contrib.orders import Order, charge_card, reserve_inventory
from orchestrator.demo.onboarding import MerchantOnboarding
from orchestrator.demo.orders import OrderFulfilment
from orchestrator.errors import DefinitionError, NotDeterministic, UsageError
from orchestrator.protocol.views import History
from orchestrator.testing import Replayer

HISTORIES = sorted((Path(__file__).parent.parent.parent / "fixtures" / "histories").glob("*.json"))

replayer = Replayer([MerchantOnboarding, OrderFulfilment])


def exported(workflow_id: str) -> bytes:
    return next(file for file in HISTORIES if file.stem == workflow_id).read_bytes()


def history(workflow_id: str) -> History:
    return msgspec.json.decode(exported(workflow_id), type=History)


def test_there_are_histories() -> None:
    assert len(HISTORIES) >= 8


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: file.stem)
def test_today_s_code_does_what_it_did(file: Path) -> None:
    replayer.replay(file.read_bytes())


@pytest.mark.parametrize("file", HISTORIES, ids=lambda file: file.stem)
def test_it_did_so_at_every_turn(file: Path) -> None:
    whole = history(file.stem)
    for turns in range(1, len(whole.turns)):
        replayer.replay(msgspec.structs.replace(whole, turns=whole.turns[:turns]))


def order_workflow(steps: list[object]) -> type:
    """Another version of OrderFulfilment."""

    @workflow.defn(name="OrderFulfilment")
    class Changed:
        @workflow.run
        async def run(self, order: Order) -> None:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                await workflow.execute_activity(step, order, start_to_close_timeout=1)  # type: ignore[arg-type]

    return Changed


def test_another_order_of_steps_is_found() -> None:
    with pytest.raises(NotDeterministic) as caught:
        Replayer([order_workflow([charge_card, reserve_inventory])]).replay(history("o-1001"))
    message = str(caught.value)
    assert "replay of turn 1 of" in message
    assert "history has activity 1 reserve_inventory, the code made activity 1 charge_card" in message


def test_an_end_that_comes_too_early_is_found() -> None:
    with pytest.raises(NotDeterministic, match="the code made completion of the workflow"):
        Replayer([order_workflow([reserve_inventory])]).replay(history("o-1001"))


def test_code_that_raises_is_found_with_its_traceback() -> None:
    with pytest.raises(NotDeterministic) as caught:
        Replayer([order_workflow([reserve_inventory, KeyError("sku")])]).replay(history("o-1001"))
    assert "the code raised KeyError" in str(caught.value)
    assert "raise step" in str(caught.value)


def test_an_unknown_type_is_told_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="type 'MerchantOnboarding'; known here: OrderFulfilment"):
        Replayer([OrderFulfilment]).replay(exported("m-7731"))


@pytest.mark.parametrize("text", [b"", b"[]", b'{"workflow_id": "o-1"}', "not JSON"])
def test_what_is_no_history_is_refused(text: bytes | str) -> None:
    with pytest.raises(UsageError, match="workflow show ID -o json"):
        replayer.replay(text)


@pytest.mark.parametrize("turns", [slice(0, 0), slice(1, None), slice(0, None, 2)])
def test_a_part_of_a_history_is_refused(turns: slice) -> None:
    whole = history("o-1001")
    with pytest.raises(UsageError, match=r"'o-1001' (is not whole|does not begin)"):
        replayer.replay(msgspec.structs.replace(whole, turns=whole.turns[turns]))


def test_what_is_no_workflow_is_refused() -> None:
    with pytest.raises(DefinitionError):
        Replayer([Order])
