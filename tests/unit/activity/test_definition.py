import types
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import activity
from orchestrator.activity.definition import by_name, definition_of, find_definitions
from orchestrator.errors import DefinitionError


@activity.defn
async def charge(order_id: str, cents: int = 100) -> float:
    return cents / 100


@activity.defn(name="send-mail")
def send(*addresses: str) -> None: ...


class Bank:
    @activity.defn
    async def transfer(self, cents: int) -> str:
        return f"{self}: {cents}"

    @staticmethod
    @activity.defn
    def rate(currency) -> float:  # type: ignore[no-untyped-def]
        return 1.0


def test_a_decorated_function_stays_callable_and_carries_its_definition() -> None:
    definition = charge.__orchestrator_activity__  # type: ignore[attr-defined]
    assert (definition.name, definition.fn, definition.is_async) == ("charge", charge, True)
    assert definition.parameter_hints == (str, int)
    assert definition.return_hint is float


def test_a_name_can_be_given() -> None:
    definition = definition_of(send)
    assert (definition.name, definition.is_async) == ("send-mail", False)


def test_missing_annotations_mean_any() -> None:
    assert definition_of(Bank.rate).parameter_hints == (Any,)


def test_a_bound_method_can_be_called_and_its_self_is_no_argument() -> None:
    bank = Bank()
    definition = definition_of(bank.transfer)
    assert definition.fn == bank.transfer
    assert definition.parameter_hints == (int,)
    assert definition.required_arguments == 1


@pytest.mark.parametrize(
    ("fn", "arguments", "hints"),
    [
        (charge, 1, (str,)),
        (charge, 2, (str, int)),
        (send, 0, ()),
        (send, 3, (str, str, str)),
    ],
)
def test_hints_follow_the_number_of_arguments(fn: Callable[..., Any], arguments: int, hints: Any) -> None:
    assert definition_of(fn).hints_for(arguments) == hints


@pytest.mark.parametrize(("fn", "arguments"), [(charge, 0), (charge, 3), (Bank().transfer, 2)])
def test_a_wrong_number_of_arguments_is_told_with_the_signature(fn: Any, arguments: int) -> None:
    with pytest.raises(DefinitionError, match=rf"{arguments} argument.*signature is \("):
        definition_of(fn).hints_for(arguments)


def _generator() -> Any:
    yield 1


async def _async_generator() -> Any:
    yield 1


def _keyword_only(*, a: int) -> None: ...


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (Bank, "expects a function"),
        (staticmethod(_keyword_only), "below @staticmethod"),
        (_generator, "generator"),
        (_async_generator, "generator"),
        (_keyword_only, "'a'.*keyword-only"),
    ],
)
def test_what_cannot_be_an_activity_is_refused(fn: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        activity.defn(fn)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(DefinitionError, match="the name is ''; give 1 to 1000 printable"):

        @activity.defn(name="")
        def nameless() -> None: ...


def test_a_function_without_decorator_is_no_activity() -> None:
    with pytest.raises(DefinitionError, match=r"@activity\.defn"):
        definition_of(_generator)


def test_two_activities_of_one_name_are_refused_with_both_places() -> None:
    @activity.defn(name="charge")
    def other() -> None: ...

    with pytest.raises(DefinitionError, match=r"'charge'.*test_definition\.charge and .*other"):
        by_name([charge, other])


def test_the_same_activity_twice_is_one() -> None:
    assert by_name([charge, charge, definition_of(charge)]) == {"charge": definition_of(charge)}


def test_a_method_without_its_instance_is_refused_with_what_to_write() -> None:
    with pytest.raises(DefinitionError, match=r"Bank\(\)\.transfer"):
        by_name([Bank.transfer])


def test_an_annotation_that_cannot_be_resolved_is_found_at_the_start() -> None:
    @activity.defn
    def lost(a: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(DefinitionError, match=r"'lost' cannot be resolved.*Nowhere"):
        by_name([lost])


def test_a_module_gives_its_functions_sorted_by_name() -> None:
    module = types.ModuleType("shop")
    vars(module).update(send=send, also=send, charge=charge, Bank=Bank, number=1, plain=len)
    assert [definition.name for definition in find_definitions(module)] == ["charge", "send-mail"]
