"""Notices what a query changed.

A query is in no history, so no replay repeats what it did: a change that it made would be there or not,
depending on when the code was last replayed. Python cannot forbid writing, so what can be reached from
the workflow object, and from the handler, is looked at before and after. Parts are compared by identity,
so no code of users runs here: no ``__eq__``, no property, no ``__getattr__``.

Reached are attributes (in ``__dict__`` and slots), the contents of containers, variables of closures and
default values. Not reached, so not noticed: globals and class attributes, and what C code hides, such as
the place of an iterator or the cells of an array.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache, partial
from itertools import count, islice
from random import Random
from types import FunctionType, MemberDescriptorType, MethodType, ModuleType, NoneType
from typing import Any, Final, NamedTuple
from uuid import UUID

MAX_PARTS_WATCHED: Final = 20_000
"""Parts of a workflow's state that are compared, those next to the workflow object first: about 10 ms per
query, on the thread that decides for everybody. Most states have some dozens."""

_MAX_CACHED_TYPES = 1_024
"""A program's workflows hold objects of some dozens of types; the bound is for types made at run time."""

_VALUES: Final = frozenset(
    (NoneType, bool, int, float, complex, str, bytes, Decimal, date, datetime, time, timedelta, UUID)
)
"""What cannot change, and may be compared by value: an equal one in its place is no change."""

_NOT_ENTERED: Final = (type, ModuleType, asyncio.AbstractEventLoop, logging.Logger, logging.LoggerAdapter)
"""What does not belong to one run."""

_CONTENTS: Final[tuple[tuple[type, Callable[[Any], Iterable[Any]]], ...]] = (
    (OrderedDict, lambda held: _flat(OrderedDict.items(held))),
    (dict, lambda held: _flat(dict.items(held))),
    (list, list.__iter__),
    (tuple, tuple.__iter__),
    (set, set.__iter__),
    (frozenset, frozenset.__iter__),
    (deque, deque.__iter__),
    (bytearray, lambda held: (bytes(held),)),
    (Random, lambda held: (hash(Random.getstate(held)),)),
    (count, lambda held: (repr(held),)),
    (MethodType, lambda held: (held.__self__, held.__func__)),
    (partial, lambda held: (held.func, held.args, held.keywords)),
    (asyncio.Future, lambda held: (held.done(),)),
)
"""How to look into what has contents, subclasses before their bases."""


class _Reader(NamedTuple):
    """How to look at objects of one type: at their attributes, and into them."""

    attributes: Callable[[Any], dict[str, Any]]
    contents: Callable[[Any], Iterable[Any]]


class _Part(NamedTuple):
    """An object as it was. ``place`` is the attribute that leads to it, "" for what was started from;
    ``room`` is how much of its contents was looked at.
    """

    owner: str
    place: str
    object: Any
    room: int
    attributes: dict[str, Any]
    contents: list[Any]


class Snapshot:
    """What can be reached from some objects at one moment; :meth:`changes` compares."""

    def __init__(self, owners: Mapping[str, object]) -> None:
        """Look at objects, by what they are called in messages, and at what they hold."""
        self._parts: dict[int, _Part] = {}
        room = MAX_PARTS_WATCHED
        ahead = deque((owner, "", found) for owner, found in owners.items())
        while ahead and room > 0:
            owner, place, found = ahead.popleft()
            reader = _reader_of(found)
            if reader is None or id(found) in self._parts:
                continue
            attributes = reader.attributes(found)
            contents = list(islice(reader.contents(found), room))
            self._parts[id(found)] = _Part(owner, place, found, room, attributes, contents)
            room -= len(attributes) + len(contents)
            inner = [(place or name, held) for name, held in attributes.items()]
            inner += [(place, held) for held in contents]
            ahead.extend((owner, via, held) for via, held in inner if type(held) not in _VALUES)

    def changes(self) -> list[str]:
        """The places that differ now, such as ``self.approved`` and ``a list in self.seen``."""
        return list(dict.fromkeys(change for part in self._parts.values() for change in _changes(part)))


def _changes(part: _Part) -> Iterator[str]:
    reader = _reader_of(part.object)
    assert reader is not None
    kind = type(part.object).__name__
    where = f"{part.owner}.{part.place}" if part.place else part.owner
    now = reader.attributes(part.object)
    for name in {**part.attributes, **now}:
        before = part.attributes.get(name, _MISSING)
        if not _same(before, now.get(name, _MISSING)) and not (part.place and _is_cache(name, before)):
            yield f"{kind}.{name} in {where}" if part.place else f"{part.owner}.{name}"
    contents = list(islice(reader.contents(part.object), part.room))
    if len(contents) != len(part.contents) or not all(map(_same, part.contents, contents)):
        yield f"a {kind} in {where}"


def _same(before: object, now: object) -> bool:
    return before is now or (type(before) is type(now) and type(now) in _VALUES and before == now)


def _is_cache(name: str, before: object) -> bool:
    """Whether filling in an attribute only keeps what was computed, as ``Path`` does with its text.

    That is asked of the objects that a workflow holds; its own attributes are state, all of them.
    """
    return before is _MISSING or (before is None and name.startswith("_"))


_MISSING = object()


def _reader_of(found: Any) -> _Reader | None:
    """How to look at an object; None if there is nothing to see."""
    kind: Any = type(found)
    return _reader_of_type(kind)


@lru_cache(maxsize=_MAX_CACHED_TYPES)
def _reader_of_type(kind: type) -> _Reader | None:
    if kind in _VALUES or issubclass(kind, _NOT_ENTERED):
        return None
    attributes = _attributes_of(kind)
    contents = next((look for known, look in _CONTENTS if issubclass(kind, known)), None)
    if attributes is None and contents is None:
        return None
    return _Reader(attributes or (lambda found: {}), contents or (lambda found: ()))


def _attributes_of(kind: type) -> Callable[[Any], dict[str, Any]] | None:
    if kind is FunctionType:
        return _variables
    if issubclass(kind, asyncio.Future):
        return None  # the engine's: what is done to one is seen by its being done
    slots = [
        (name, slot)
        for base in kind.__mro__
        if "__slots__" in vars(base)
        for name, slot in vars(base).items()
        if isinstance(slot, MemberDescriptorType)
    ]
    has_dict = bool(kind.__dictoffset__)
    if not slots and not has_dict:
        return None

    def attributes(found: Any) -> dict[str, Any]:
        values = dict(object.__getattribute__(found, "__dict__")) if has_dict else {}
        for name, slot in slots:
            try:
                values[name] = slot.__get__(found)
            except AttributeError:  # not set
                continue
        return values

    return attributes


def _variables(function: Any) -> dict[str, Any]:
    """What a function keeps from one call to the next: variables around it, and default values."""
    values: dict[str, Any] = {
        "__defaults__": function.__defaults__,
        "__kwdefaults__": function.__kwdefaults__,
    }
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not set
            continue
    return values


def _flat(pairs: Iterable[tuple[Any, Any]]) -> Iterator[Any]:
    for key, value in pairs:
        yield key
        yield value
