"""Declaring workflows, and the messages for those declared wrongly."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import workflow
from orchestrator.errors import DefinitionError
from orchestrator.workflow.definition import definition_of, find_definitions


class Base:
    @workflow.signal
    def poke(self, times: int) -> None: ...

    @workflow.query
    def status(self) -> str:
        return ""


@workflow.defn(name="order", failure_exception_types=[KeyError])
class OrderWorkflow(Base):
    @workflow.run
    async def run(self, order_id: str, *rest: int) -> bool:
        return True

    @workflow.signal(name="other")
    async def on_other(self) -> None: ...


def test_a_definition_holds_what_the_engine_needs() -> None:
    definition = definition_of(OrderWorkflow)
    assert (definition.name, definition.cls) == ("order", OrderWorkflow)
    assert definition.failure_exception_types == (KeyError,)
    assert definition.run.hints == (str,)
    assert definition.run.hints_for(3) == (str, int, int)
    assert definition.run.result_hint is bool
    assert sorted(definition.signals) == ["other", "poke"]
    assert definition.signals["poke"].hints == (int,)
    assert definition.signals["other"].is_async
    assert list(definition.queries) == ["status"]


def no_run() -> None:
    @workflow.defn
    class W:
        pass


def two_runs() -> None:
    @workflow.defn
    class W:
        @workflow.run
        async def a(self) -> None: ...
        @workflow.run
        async def b(self) -> None: ...


def sync_run() -> None:
    class W:
        @workflow.run  # type: ignore[type-var]
        def run(self) -> None: ...


def async_query() -> None:
    class W:
        @workflow.query
        async def q(self) -> None: ...


def duplicate_signal() -> None:
    @workflow.defn
    class W:
        @workflow.run
        async def run(self) -> None: ...
        @workflow.signal(name="s")
        def a(self) -> None: ...
        @workflow.signal(name="s")
        def b(self) -> None: ...


def reserved_name() -> None:
    class W:
        @workflow.query
        def __stack(self) -> None: ...
        @workflow.query(name="__mine")
        def b(self) -> None: ...


def reserved_workflow_name() -> None:
    @workflow.defn(name="__w")
    class W:
        @workflow.run
        async def run(self) -> None: ...


def two_roles() -> None:
    class W:
        @workflow.signal
        @workflow.query
        def b(self) -> None: ...


def override_without_decorator() -> None:
    @workflow.defn
    class W(Base):
        @workflow.run
        async def run(self) -> None: ...
        def poke(self, times: int) -> None: ...


def init_differs() -> None:
    @workflow.defn
    class W:
        @workflow.init
        def __init__(self, a: int) -> None: ...
        @workflow.run
        async def run(self, b: int) -> None: ...


def init_elsewhere() -> None:
    class W:
        @workflow.init
        def start(self, a: int) -> None: ...


def no_exception() -> None:
    @workflow.defn(failure_exception_types=[int])  # type: ignore[list-item]
    class W:
        @workflow.run
        async def run(self) -> None: ...


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (no_run, "has no entry; mark one async method with @workflow.run"),
        (two_runs, r"has 2 methods with @workflow.run \(a, b\); keep one"),
        (sync_run, "must be declared with 'async def'"),
        (async_query, "must not be async"),
        (duplicate_signal, "two handlers for the signal 's': a and b"),
        (reserved_name, "names with '__' are the engine's"),
        (reserved_workflow_name, "names with '__' are the engine's"),
        (two_roles, "it can have one role only"),
        (override_without_decorator, "overrides a @workflow.signal of Base without the decorator"),
        (init_differs, r"takes \(a\), and @workflow.run \(b\)"),
        (init_elsewhere, "must be __init__"),
        (no_exception, "which is no exception"),
    ],
)
def test_mistakes_are_named(declare: Callable[[], None], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        declare()


def test_a_class_without_a_definition_of_its_own() -> None:
    class Child(OrderWorkflow):
        pass

    for cls in (Base, Child):
        with pytest.raises(DefinitionError, match="is not a workflow; decorate the class"):
            definition_of(cls)


def module_with(**members: Any) -> types.ModuleType:
    module = types.ModuleType("users_module")
    vars(module).update(members)
    return module


@workflow.defn(name="order")
class Another:
    @workflow.run
    async def run(self) -> None: ...


@workflow.defn
class Unresolvable:
    @workflow.run
    async def run(self, order: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@workflow.defn
class KeywordOnly:
    @workflow.run
    async def run(self, *, order: int) -> None: ...


def test_find_definitions_finds_each_once() -> None:
    module = module_with(first=OrderWorkflow, alias=OrderWorkflow, base=Base, number=3)
    assert find_definitions(module) == [definition_of(OrderWorkflow)]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a": OrderWorkflow, "b": Another}, "two workflows named 'order': OrderWorkflow and Another"),
        ({"a": Unresolvable}, "annotations of Unresolvable.run cannot be resolved: name 'Missing'"),
        ({"a": KeywordOnly}, "requires the keyword 'order'"),
    ],
)
def test_find_definitions_refuses(members: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        find_definitions(module_with(**members))
