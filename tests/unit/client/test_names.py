from typing import Any

import pytest

from orchestrator import workflow
from orchestrator.client.names import Called, handler_called, workflow_called
from orchestrator.errors import DefinitionError, UsageError


@workflow.defn(name="order")
class Order:
    @workflow.run
    async def run(self, order_id: str, cents: int = 0) -> float:
        return 0.0

    @workflow.signal(name="approved")
    async def approve(self, by: str) -> None: ...

    @workflow.query
    def status(self) -> str:
        return ""


class Shop:
    @workflow.defn
    class Refund:
        @workflow.run
        async def run(self) -> None: ...


class Undecorated:
    @workflow.run
    async def run(self) -> None: ...


def local_workflow() -> Any:
    @workflow.defn
    class Local:
        @workflow.run
        async def run(self) -> int:
            return 1

    return Local


def test_a_workflow_is_known_by_its_run_method_its_class_or_its_name() -> None:
    assert workflow_called(Order.run, 1) == workflow_called(Order, 2) == Called("order", float)
    assert workflow_called(Shop.Refund.run, 0) == Called("Refund", type(None))
    assert workflow_called("anything", 17) == Called("anything", None)


def test_a_class_inside_a_function_is_known_by_its_entry() -> None:
    local = local_workflow()
    assert workflow_called(local.run, 0) == workflow_called(local, 0) == Called("Local", int)


def test_an_entry_that_local_classes_share_is_ambiguous() -> None:
    local = local_workflow()

    @workflow.defn
    class Heir(local):  # type: ignore[misc]
        pass

    assert workflow_called(Heir, 0) == Called("Heir", int)
    for cls in (local, Heir):
        with pytest.raises(DefinitionError, match="pass the class itself"):
            workflow_called(cls.run, 0)


@pytest.mark.parametrize(
    ("what", "arguments", "message"),
    [
        (Order.run, 0, "0 were given"),
        (Order, 3, "3 were given"),
        (Order.approve, 1, "is not a workflow"),
        (len, 1, "is not a workflow"),
        (dict, 0, "is not a workflow"),
        (Undecorated.run, 0, "is not a workflow"),
        ("", 0, "workflow type is empty"),
    ],
)
def test_what_is_no_workflow_or_takes_other_arguments_is_refused(
    what: Any, arguments: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        workflow_called(what, arguments)


def test_a_handler_is_known_by_its_method_or_its_name() -> None:
    assert handler_called("signal", Order.approve, 1).name == "approved"
    assert handler_called("query", Order.status, 0) == Called("status", str)
    assert handler_called("query", "__stack", 0) == Called("__stack", None)


@pytest.mark.parametrize(
    ("kind", "handler", "arguments", "message"),
    [
        ("signal", Order.status, 0, "is not a signal"),
        ("query", Order.approve, 1, "is not a query"),
        ("query", Order.run, 0, "is not a query"),
        ("signal", Order.approve, 0, "0 were given"),
        ("signal", "", 0, "signal is empty"),
    ],
)
def test_what_is_no_handler_of_that_kind_is_refused(
    kind: str, handler: Any, arguments: int, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        handler_called(kind, handler, arguments)
