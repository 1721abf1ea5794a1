"""Histories and descriptions, for people."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

import msgspec

from orchestrator.cli import output
from orchestrator.cli.engine import Engine, patiently
from orchestrator.cli.exits import CommandUsage
from orchestrator.codec.payloads import BINARY_NULL, JSON_PLAIN
from orchestrator.codec.people import span_of, time_of, visible
from orchestrator.protocol.events import CLOSES, ActivityScheduled, Event
from orchestrator.protocol.records import Turn
from orchestrator.protocol.values import Failure, Payload
from orchestrator.protocol.views import History

PAGE_TURNS = 1_000
"""Turns that one request asks for."""

LOOK_S = 0.5
"""How often somebody who follows a run looks for what is new."""

_WIDTHS = (5, 24, max(len(kind.__name__) for kind in get_args(Event)), 0)
"""Of the columns, where no line can wait for the widest."""

_NOT_SHOWN = ("flags", "stack", "retry_policy", "headers", "inbox", "started_time_ms")
"""What people do not look for in a line; ``-o json`` has it."""

_WORKER_CHARS = 8
"""Of a worker's name: enough to tell two of them apart."""


def read_history(engine: Engine, workflow_id: str, run_id: str) -> History:
    """All turns of a run."""
    whole: History | None = None
    with output.progress("turns read") as count:
        while True:
            after = whole.turns[-1].turn if whole is not None and whole.turns else 0
            page = _page(engine, workflow_id, run_id, after)
            whole = page if whole is None else whole.then(page)
            run_id = page.run_id
            count(len(page.turns))
            if len(page.turns) < PAGE_TURNS:
                return whole


def _page(engine: Engine, workflow_id: str, run_id: str, after_turn: int) -> History:
    content = engine.get(
        "workflows", workflow_id, "history", run_id=run_id, after_turn=after_turn, limit=PAGE_TURNS
    )
    return msgspec.json.decode(content, type=History)


def follow(engine: Engine, workflow_id: str, run_id: str, format: output.Format) -> None:
    """Print the turns of a run, and those that come, until it is closed; an engine that goes away meanwhile
    is waited for.

    Raises:
        CommandUsage: the format is not one of lines.
    """
    if format not in ("table", "jsonl"):
        raise CommandUsage(f"-o {format} cannot go on; give --follow with -o table or -o jsonl")
    after, activities = 0, dict[int, str]()
    page = _page(engine, workflow_id, run_id, after)
    run_id = page.run_id  # of this run, even if the id is started anew meanwhile
    while True:
        for turn in page.turns:
            if format == "jsonl":
                output.write(output.to_jsonl([turn]))
            else:
                for row in _rows(turn, activities):
                    output.write(visible("  ".join(map(str.ljust, row, _WIDTHS)).rstrip()))
            after = turn.turn
        sys.stdout.flush()
        if page.turns and _closes(page.turns[-1]):
            return
        if len(page.turns) < PAGE_TURNS:
            time.sleep(LOOK_S)
        page = patiently(lambda: _page(engine, workflow_id, run_id, after))  # noqa: B023  (asked at once)


def _closes(turn: Turn) -> bool:
    return any(isinstance(event, CLOSES) for event in turn.events)


def history_text(history: History) -> str:
    """One line per event; those of an activity name it."""
    activities = dict[int, str]()
    rows = [row for turn in history.turns for row in _rows(turn, activities)]
    return output.table(["ID", "TIME", "EVENT", "DETAILS"], rows)


def _rows(turn: Turn, activities: dict[int, str]) -> Iterator[list[str]]:
    """A line for each event of a turn; ``activities`` learns their names."""
    for number, event in _numbered(turn):
        if isinstance(event, ActivityScheduled):
            activities[event.activity_id] = event.activity_type
        yield [str(number), time_of(turn.time_ms), type(event).__name__, details(event, activities)]


def _numbered(turn: Turn) -> enumerate[Event]:
    return enumerate(turn.events, start=turn.first_event_id)


def details(event: msgspec.Struct, activities: Mapping[int, str] | None = None) -> str:
    """The fields of an event that differ from their defaults, on one line.

    ``activities`` are the names of activities, for events that have only their numbers.
    """
    shown = []
    for field in msgspec.structs.fields(event):
        value = getattr(event, field.name)
        if field.name in _NOT_SHOWN or value == field.default or value in ("", None, (), {}, 0):
            continue
        name, text = _named(field.name, value)
        if name == "activity_id" and activities and not hasattr(event, "activity_type"):
            text = f"{text} ({activities.get(value, 'unknown')})"
        shown.append(f"{name}={text}")
    return ", ".join(shown)


def _named(name: str, value: Any) -> tuple[str, str]:
    """A field and its value as people say it: times and durations without their unit in the name."""
    if name.endswith("_time_ms"):
        return name.removesuffix("_ms"), time_of(value)
    if name.endswith("_ms"):
        return name.removesuffix("_ms"), span_of(value)
    return name, value[:_WORKER_CHARS] if name == "worker" else _short(value)


def _short(value: Any) -> str:
    if isinstance(value, Payload):
        show = _PAYLOADS.get(value.encoding)
        return value.encoding if show is None else show(value.data)
    if isinstance(value, Failure):
        return failure_text(msgspec.to_builtins(value))
    if isinstance(value, tuple):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_short(found)}' for name, found in value.items())}}}"
    if isinstance(value, msgspec.Struct):
        return f"({details(value)})"
    return str(value)


_PAYLOADS: dict[str, Callable[[bytes], str]] = {
    JSON_PLAIN: lambda data: data.decode(errors="replace"),
    BINARY_NULL: lambda _: "null",
}
"""What can be shown of a payload, by its encoding; of others, that is its name."""


def failure_text(failure: Mapping[str, Any] | None) -> str:
    """A failure and its causes, on one line."""
    links = []
    while failure:
        type, message = failure.get("type"), failure["message"]
        links.append(f"{type}: {message}" if type and message else type or message or failure["kind"])
        failure = failure.get("cause")
    return " <- ".join(links)


def took(row: Mapping[str, Any]) -> str:
    """How long a run was open; "" while it is."""
    return span_of(row["close_time_ms"] - row["start_time_ms"]) if row["close_time_ms"] else ""


def step(row: Mapping[str, Any]) -> str:
    """The activity that a run waits for, with its attempt if it is not the first."""
    again = f" (attempt {row['attempt']})" if row["attempt"] > 1 else ""
    return f"{row['activity_type']}{again}" if row["activity_type"] else ""


def description_text(found: dict[str, Any]) -> str:
    """A run as it stands."""
    row = found["row"]
    head = output.fields(
        {
            "Workflow id": row["workflow_id"],
            "Run id": row["run_id"],
            "Type": row["workflow_type"],
            "Status": row["status"],
            "Started": time_of(row["start_time_ms"]),
            "Closed": time_of(row["close_time_ms"]),
            "Took": took(row),
            "Times out": time_of(found["run_timeout_time_ms"]),
            "Events": str(row["history_events"]),
            "Tags": ", ".join(row["tags"]),
            "Input": _compact(found["input"]),
            "Result": _compact(found["result"]) if row["status"] == "Completed" else "",
            "Failure": failure_text(found["failure"]),
            "Blocked by": failure_text(found["blocked"]),
            "Stack": ((found["blocked"] or found["failure"] or {}).get("stack") or "").rstrip(),
            "Cancel": "requested" if found["cancel_requested"] else "",
            "Waits": _waits(found),
        }
    )
    sections = [head]
    if found["pending_activities"]:
        sections.append(output.rows_text(found["pending_activities"], _ACTIVITIES))
    if found["pending_timers"]:
        sections.append(output.rows_text(found["pending_timers"], _TIMERS))
    return "\n\n".join(sections)


def _waits(found: Mapping[str, Any]) -> str:
    """What an open run waits for, if nothing that is listed says it."""
    row = found["row"]
    if row["status"] != "Running" or found["pending_activities"] or found["pending_timers"]:
        return ""
    return (
        f"in its code, for a signal or a condition: 'orchestrator workflow stack {row['workflow_id']}' "
        "shows where"
    )


def attempt(row: Mapping[str, Any]) -> str:
    """Which attempt of how many; "" where there is none."""
    return f"{row['attempt']}/{row['maximum_attempts'] or '∞'}" if row["attempt"] else ""


_ACTIVITIES: dict[str, output.Column] = {
    "ACTIVITY": "activity_id",
    "TYPE": "activity_type",
    "STATE": "state",
    "ATTEMPT": attempt,
    "QUEUE": "task_queue",
    "WORKER": lambda item: item["worker"][:_WORKER_CHARS],
    "SCHEDULED": "scheduled_time_ms",
    "SINCE": lambda item: time_of(item["started_time_ms"] or item["waiting_time_ms"]),
    "NEXT ATTEMPT": "next_retry_time_ms",
    "LAST ERROR": lambda item: failure_text(item["last_failure"]),
}
"""Of an activity that is open. ``SINCE`` is when it began to run, or to wait for a worker."""

_TIMERS: dict[str, output.Column] = {"TIMER": "timer_id", "FIRES": "fire_time_ms", "SUMMARY": "summary"}


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
