"""The events of a run as a list for people: read page by page from either end, and told in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import msgspec

from orchestrator.api.pages.rendering import bytes_text, payload_text
from orchestrator.client.reads import AsyncReader
from orchestrator.codec.people import span_of, time_of
from orchestrator.errors import UsageError
from orchestrator.protocol import events as e
from orchestrator.protocol.records import Turn
from orchestrator.protocol.values import Failure, Payload
from orchestrator.protocol.views import History

PAGE_EVENTS = 100
"""Events on one page: some screens full."""

CHUNK_TURNS = 250
"""Turns that are read at a time, in some milliseconds."""

MAX_EVENTS_EXAMINED = 20_000
"""To fill one page of a filtered list; then it goes on when somebody asks."""

MAX_DIGITS = 18
"""Of the number of a turn or an event: those fit into 63 bits, and there are not nearly so many."""

MAX_FIELD_CHARS = 4_000
"""Of one field of an event: a page of them stays below half a megabyte, and the download has it all."""

MAX_WHAT_CHARS = 200
"""Of the line that says what an event is about."""

_FAILURES: tuple[type[e.EventBase], ...] = (
    e.ActivityAttemptFailed,
    e.ActivityFailed,
    e.ActivityTimedOut,
    e.WorkflowFailed,
    e.WorkflowTimedOut,
    e.WorkflowBlocked,
)

Shown = Literal["", "failures", "activities", "timers", "signals", "published", "workflow"]
"""What a list of events can be narrowed to; "" is all."""

SHOWN: Mapping[Shown, tuple[type[e.EventBase], ...]] = {
    "failures": _FAILURES,
    "activities": (
        e.ActivityScheduled,
        e.ActivitiesDispatched,
        e.ActivityReturned,
        e.ActivityAttemptFailed,
        e.ActivityCompleted,
        e.ActivityFailed,
        e.ActivityTimedOut,
        e.ActivityCancelRequested,
        e.ActivityCanceled,
        e.ActivitiesAbandoned,
    ),
    "timers": (e.TimerStarted, e.TimerFired, e.TimerCanceled),
    "signals": (e.WorkflowSignaled, e.WorkflowCancelRequested),
    "published": (e.EventPublished,),
    "workflow": (
        e.WorkflowStarted,
        e.WorkflowCompleted,
        e.WorkflowFailed,
        e.WorkflowCanceled,
        e.WorkflowTerminated,
        e.WorkflowTimedOut,
        e.WorkflowBlocked,
        e.WorkflowUnblocked,
        e.UnknownEvent,
    ),
}
"""The events that a narrowed list has."""


class Cursor(NamedTuple):
    """Where a list goes on: behind this event, which is in this turn."""

    turn: int
    event: int

    def __str__(self) -> str:
        return f"{self.turn}.{self.event}"


class Entry(NamedTuple):
    """An event. ``offset`` -1: where it stands is not known. ``fields`` are names and values, as text."""

    id: int
    turn: int
    time_ms: int
    kind: str
    what: str
    fields: tuple[tuple[str, str], ...]
    bad: bool
    partition: int
    offset: int


class Journal(NamedTuple):
    """A page of events. ``next`` is where it goes on; None: these were the last ones.

    With ``gave_up``, so many events were looked at and too few are of the kinds asked for.
    """

    entries: tuple[Entry, ...]
    next: Cursor | None = None
    gave_up: bool = False


def cursor_of(text: str) -> Cursor | None:
    """A cursor from an address; None: the beginning of the list.

    Raises:
        UsageError: no list has given it.
    """
    if not text:
        return None
    turn, event = map(number_of, text.partition(".")[::2])
    if turn is None or event is None:
        raise UsageError(f"{text[:60]!r} is not a place in a list of events; expected one like '12.34'")
    return Cursor(turn, event)


def number_of(text: str) -> int | None:
    """The number of a turn or an event from an address; None: it is none that there can be."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


async def read_journal(
    reader: AsyncReader,
    workflow_id: str,
    run_id: str,
    *,
    shown: Shown = "",
    newest: bool = True,
    after: Cursor | None = None,
    names: Mapping[int, str] = {},
    limit: int = PAGE_EVENTS,
) -> Journal:
    """A page of a run's events.

    Args:
        reader: the read side.
        workflow_id: whose events.
        run_id: which of its runs.
        shown: a key of ``SHOWN``; "" for all kinds.
        newest: from the last event backwards, or from the first one on.
        after: goes on behind this event, in the direction of reading.
        names: of activities, by their ids.
        limit: events on the page.

    Raises:
        WorkflowNotFound: there is no such run.
    """
    kinds = SHOWN.get(shown)
    entries: list[Entry] = []
    examined = 0
    last = after
    while True:
        bounds = _bounds(last, newest=newest)
        page = await reader.history(workflow_id, run_id, **bounds, newest=newest, limit=CHUNK_TURNS)
        for turn, number, event in _events(page, newest=newest):
            if last is not None and (number >= last.event if newest else number <= last.event):
                continue
            if len(entries) == limit or examined == MAX_EVENTS_EXAMINED:
                return Journal(tuple(entries), last, gave_up=len(entries) < limit)
            last, examined = Cursor(turn.turn, number), examined + 1
            if kinds is None or isinstance(event, kinds):
                entries.append(_entry(page, turn, number, names))
        if len(page.turns) < CHUNK_TURNS:
            return Journal(tuple(entries))
        edge = page.turns[0 if newest else -1]
        last = Cursor(edge.turn, edge.first_event_id + (0 if newest else len(edge.events) - 1))


def _bounds(after: Cursor | None, *, newest: bool) -> dict[str, int]:
    """The turns that may hold what comes behind an event: its own turn too."""
    if after is None:
        return {}
    return {"before_turn": after.turn + 1} if newest else {"after_turn": max(0, after.turn - 1)}


def _events(page: History, *, newest: bool) -> Iterator[tuple[Turn, int, e.Event]]:
    for turn in reversed(page.turns) if newest else page.turns:
        numbers = range(len(turn.events))
        for place in reversed(numbers) if newest else numbers:
            yield turn, turn.first_event_id + place, turn.events[place]


def _entry(page: History, turn: Turn, number: int, names: Mapping[int, str]) -> Entry:
    event = turn.events[number - turn.first_event_id]
    return Entry(
        id=number,
        turn=turn.turn,
        time_ms=turn.time_ms,
        kind=event.kind if isinstance(event, e.UnknownEvent) else type(event).__name__,
        what=what(event, names),
        fields=tuple(_fields(event)),
        bad=isinstance(event, _FAILURES),
        partition=page.partition,
        offset=page.offsets[turn.turn - page.turns[0].turn],
    )


# ----------------------------------------------------------------------------------------- in words


def what(event: e.EventBase, names: Mapping[int, str] = {}) -> str:
    """What an event is about, on one line: the activity, signal or timer, and what went wrong."""
    found = [word for word in _words(event, names) if word]
    return " · ".join(found)[:MAX_WHAT_CHARS]


def _words(event: Any, names: Mapping[int, str]) -> Iterator[str]:
    if hasattr(event, "activity_id"):
        name = getattr(event, "activity_type", "") or names.get(event.activity_id, "activity")
        yield f"{name} #{event.activity_id}"
    if hasattr(event, "timer_id"):
        yield f"timer #{event.timer_id}"
    for name in ("workflow_type", "signal_name", "topic", "summary", "reason"):
        yield str(getattr(event, name, ""))
    dispatches = getattr(event, "dispatches", ())
    if dispatches:
        first = dispatches[0].activity_id
        name = f"{names.get(first, 'activity')} #{first}"
        yield name if len(dispatches) == 1 else f"{name} and {len(dispatches) - 1:,} others"
    if getattr(event, "attempt", 1) > 1:
        yield f"attempt {event.attempt}"
    failure = getattr(event, "failure", None)
    if failure is not None:
        yield " ".join(said(_root(failure)).split())


def _root(failure: Failure) -> Failure:
    while failure.cause is not None:
        failure = failure.cause
    return failure


def said(failure: Failure) -> str:
    """One failure of a chain: its type and its message."""
    return ": ".join(word for word in (failure.type, failure.message) if word) or failure.kind.value


def _fields(found: msgspec.Struct) -> Iterator[tuple[str, str]]:
    """What an event, or a structure in it, holds beside its defaults."""
    for field in msgspec.structs.fields(found):
        value = getattr(found, field.name)
        default = field.default_factory() if callable(field.default_factory) else field.default
        if value != default and value not in ("", None, (), {}):
            yield _named(field.name, value)


def _named(name: str, value: Any) -> tuple[str, str]:
    """A field and its value as people say it: times and durations without their unit in the name."""
    if name.endswith("_time_ms"):
        return name.removesuffix("_ms"), time_of(value)
    if name.endswith("_ms"):
        return name.removesuffix("_ms"), span_of(value)
    text = _text(value)
    if len(text) > MAX_FIELD_CHARS:
        text = f"{text[:MAX_FIELD_CHARS]}… ({len(text):,} characters; the download has them all)"
    return name, text


def _text(value: Any) -> str:
    for kind, convert in _TEXTS.items():
        if isinstance(value, kind):
            return convert(value)
    return str(value)


def _joined(values: Iterable[Any]) -> str:
    return "\n".join(map(_text, values))


def _struct_text(value: msgspec.Struct) -> str:
    """A structure in a field: its own fields, on one line."""
    return ", ".join(f"{name} {text}" for name, text in _fields(value))


def _failure_text(failure: Failure | None) -> str:
    """A chain of failures from the outermost to the root, each with its stack."""
    found = []
    while failure is not None:
        words = (said(failure), *map(_text, failure.details), failure.stack.rstrip())
        found.append("\n".join(filter(None, words)))
        failure = failure.cause
    return "\n\ncaused by ".join(found)


_TEXTS: Mapping[type, Callable[[Any], str]] = {
    Payload: lambda found: (
        payload_text(found) if len(found.data) <= MAX_FIELD_CHARS else bytes_text(found.data)
    ),
    Failure: _failure_text,
    msgspec.Struct: _struct_text,
    bytes: bytes_text,
    tuple: _joined,
    dict: lambda found: "\n".join(f"{name}: {_text(value)}" for name, value in found.items()),
}
"""How values of events are said, the more particular kinds first."""
