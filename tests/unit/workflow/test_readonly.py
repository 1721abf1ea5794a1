"""What a query changes is noticed, and what it only computes is not taken for a change."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import PurePath
from random import Random
from typing import Any

import msgspec
import pytest

from orchestrator.workflow import readonly
from orchestrator.workflow.readonly import Snapshot


@dataclass
class Item:
    price: int = 7
    tags: list[str] = field(default_factory=lambda: ["new"])
    _text: str | None = None

    @cached_property
    def total(self) -> int:
        return self.price * 2

    def text(self) -> str:
        if self._text is None:
            self._text = f"{self.price}"
        return self._text


@dataclass(slots=True)
class Slotted:
    value: int = 0


class Struct(msgspec.Struct):
    value: list[int] = []


class Loner:
    """Compares in its own way, and answers to any name."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise AssertionError("it was asked")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"it was asked for {name}")


class State:
    """As a workflow object may be."""

    def __init__(self) -> None:
        self.number = 300
        self.text = "a text"
        self.none: Any = None
        self.items = [Item(), Item()]
        self.by_name = {"first": Item(), "deep": {"deeper": [1]}}
        self.ordered = OrderedDict(a=1, b=2)
        self.counts: dict[str, int] = defaultdict(int, {"known": 1})
        self.counter = Counter("ab")
        self.bag = {"x", "y"}
        self.waiting = deque([1, 2, 3])
        self.raw = bytearray(b"raw")
        self.pair = ([1], "two")
        self.slotted = Slotted()
        self.struct = Struct()
        self.ids = itertools.count()
        self.dice = Random(1)
        self.bound = self.items[0].tags.append
        self.method = self.method_of_item(self.items[1])
        self.later = partial(print, [1])
        self.path = PurePath("a/b")
        self.loner = Loner()
        self.logger = logging.getLogger("tests.readonly")
        self.circle: list[Any] = []
        self.circle.append(self.circle)

    @staticmethod
    def method_of_item(item: Item) -> Callable[[], str]:
        return item.text


CHANGES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda s: setattr(s, "number", 301), "self.number"),
    (lambda s: setattr(s, "none", 0), "self.none"),
    (lambda s: setattr(s, "new", None), "self.new"),
    (lambda s: delattr(s, "text"), "self.text"),
    (lambda s: setattr(s, "items", list(s.items)), "self.items"),
    (lambda s: s.items.append(Item()), "a list in self.items"),
    (lambda s: s.items.reverse(), "a list in self.items"),
    (lambda s: setattr(s.items[1], "price", 8), "Item.price in self.items"),
    (lambda s: s.items[0].tags.clear(), "a list in self.items"),
    (lambda s: setattr(s.by_name["first"], "price", 8), "Item.price in self.by_name"),
    (lambda s: s.by_name["deep"]["deeper"].append(2), "a list in self.by_name"),
    (lambda s: s.by_name.pop("first"), "a dict in self.by_name"),
    (lambda s: s.ordered.move_to_end("a"), "a OrderedDict in self.ordered"),
    (lambda s: s.counts["unknown"], "a defaultdict in self.counts"),
    (lambda s: s.counter.update("a"), "a Counter in self.counter"),
    (lambda s: s.bag.add("z"), "a set in self.bag"),
    (lambda s: s.waiting.rotate(), "a deque in self.waiting"),
    (lambda s: s.raw.extend(b"!"), "a bytearray in self.raw"),
    (lambda s: s.pair[0].append(2), "a list in self.pair"),
    (lambda s: setattr(s.slotted, "value", 1), "Slotted.value in self.slotted"),
    (lambda s: setattr(s.struct, "value", []), "Struct.value in self.struct"),
    (lambda s: s.struct.value.append(1), "a list in self.struct"),
    (lambda s: next(s.ids), "a count in self.ids"),
    (lambda s: s.dice.random(), "a Random in self.dice"),
    (lambda s: s.later.args[0].append(1), "a list in self.later"),
]


@pytest.mark.parametrize(("change", "place"), CHANGES, ids=[place for _, place in CHANGES])
def test_a_change_is_noticed_with_its_place(change: Callable[[Any], Any], place: str) -> None:
    state = State()
    before = Snapshot({"self": state})
    change(state)
    assert before.changes() == [place]


def test_looking_and_computing_is_no_change() -> None:
    state = State()
    before = Snapshot({"self": state})
    state.number = int("300")
    state.text = "".join(["a ", "text"])
    sum(item.total for item in state.items)
    state.items[0].text()
    str(state.path)
    hash(state.path)
    vars(state.items[1])
    state.logger.isEnabledFor(logging.DEBUG)
    state.counts.get("unknown")
    state.bag.add("x")
    sorted(state.waiting)
    assert before.changes() == []


def test_all_changes_are_told_once_each() -> None:
    state = State()
    before = Snapshot({"self": state})
    state.number = 1
    state.items[0].price = state.items[1].price = 1
    assert before.changes() == ["self.number", "Item.price in self.items"]


def test_variables_around_a_handler_and_its_default_values_are_state() -> None:
    seen: list[int] = []
    calls = 0

    def handler(asked: int = 0, cache: dict[int, int] = {}) -> int:  # noqa: B006  # that is the trap
        nonlocal calls
        calls += 1
        seen.append(asked)
        return cache.setdefault(asked, calls)

    before = Snapshot({"self": State(), "handler": handler})
    handler()
    assert set(before.changes()) == {
        "handler.calls",
        "a list in handler.seen",
        "a dict in handler.__defaults__",
    }


async def test_a_future_that_is_done_is_a_change() -> None:
    state = State()
    state.none = asyncio.get_running_loop().create_future()
    before = Snapshot({"self": state})
    state.none.set_result(1)
    assert before.changes() == ["a Future in self.none"]


def test_a_large_state_is_looked_at_near_the_workflow_object_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readonly, "MAX_PARTS_WATCHED", 100)
    state = State()
    state.items = [Item(price=number) for number in range(1_000)]
    before = Snapshot({"self": state})
    state.items[999].price = -1
    assert before.changes() == []
    state.items[3] = Item()
    state.number = 1
    assert before.changes() == ["self.number", "a list in self.items"]
