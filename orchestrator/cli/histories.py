"""Histories and descriptions, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from orchestrator.cli import output
from orchestrator.cli.engine import Engine
from orchestrator.protocol.events import Event
from orchestrator.protocol.records import Turn
from orchestrator.protocol.values import Failure, Payload
from orchestrator.protocol.views import History

PAGE_TURNS = 1_000
"""Turns that one request asks for."""

_NOT_SHOWN = ("flags", "stack", "retry_policy", "headers")


def read_history(engine: Engine, workflow_id: str, run_id: str) -> History:
    """All turns of a run."""
    whole: History | None = None
    with output.progress("turns read") as count:
        while True:
            after = whole.turns[-1].turn if whole is not None and whole.turns else 0
            content = engine.get(
                "workflows", workflow_id, "history", run_id=run_id, after_turn=after, limit=PAGE_TURNS
            )
            page = msgspec.json.decode(content, type=History)
            whole = page if whole is None else replace(whole, turns=whole.turns + page.turns)
            run_id = page.run_id
            count(len(page.turns))
            if len(page.turns) < PAGE_TURNS:
                return whole


def history_text(history: History) -> str:
    """One line per event."""
    rows = [
        [str(number), output.time_of(turn.time_ms), type(event).__name__, details(event)]
        for turn in history.turns
        for number, event in _numbered(turn)
    ]
    return output.table(["ID", "TIME", "EVENT", "DETAILS"], rows)


def _numbered(turn: Turn) -> enumerate[Event]:
    return enumerate(turn.events, start=turn.first_event_id)


def details(event: msgspec.Struct) -> str:
    """The fields of an event that differ from their defaults, on one line."""
    return ", ".join(
        f"{name}={_short(value)}"
        for name, value in msgspec.structs.asdict(event).items()
        if name not in _NOT_SHOWN and value not in ("", None, (), {}, 0)
    )


def _short(value: Any) -> str:
    if isinstance(value, Payload):
        return value.data.decode(errors="replace") if value.encoding == "json/plain" else value.encoding
    if isinstance(value, Failure):
        return failure_text(msgspec.to_builtins(value))
    if isinstance(value, tuple):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_short(found)}' for name, found in value.items())}}}"
    if isinstance(value, msgspec.Struct):
        return f"({details(value)})"
    return str(value)


def failure_text(failure: Mapping[str, Any] | None) -> str:
    """A failure and its causes, on one line."""
    links = []
    while failure:
        kind = failure.get("type") or failure["kind"]
        links.append(f"{kind}: {failure['message']}" if failure["message"] else kind)
        failure = failure.get("cause")
    return " <- ".join(links)


def description_text(found: dict[str, Any]) -> str:
    """A run as it stands."""
    row = found["row"]
    head = output.fields(
        {
            "Workflow id": row["workflow_id"],
            "Run id": row["run_id"],
            "Type": row["workflow_type"],
            "Status": row["status"],
            "Started": output.time_of(row["start_time_ms"]),
            "Closed": output.time_of(row["close_time_ms"]),
            "Times out": output.time_of(found["run_timeout_time_ms"]),
            "Events": str(row["history_events"]),
            "Tags": ", ".join(row["tags"]),
            "Input": _compact(found["input"]),
            "Result": _compact(found["result"]) if row["status"] == "Completed" else "",
            "Failure": failure_text(found["failure"]),
            "Blocked by": failure_text(found["blocked"]),
            "Stack": ((found["blocked"] or found["failure"] or {}).get("stack") or "").rstrip(),
            "Cancel": "requested" if found["cancel_requested"] else "",
        }
    )
    activities = [
        [
            str(item["activity_id"]),
            item["activity_type"],
            item["state"],
            f"{item['attempt']}/{item['maximum_attempts'] or '∞'}",
            output.time_of(item["next_retry_time_ms"]),
            failure_text(item["last_failure"]),
        ]
        for item in found["pending_activities"]
    ]
    timers = [
        [str(item["timer_id"]), output.time_of(item["fire_time_ms"]), item["summary"]]
        for item in found["pending_timers"]
    ]
    sections = [head]
    if activities:
        titles = ["ACTIVITY", "TYPE", "STATE", "ATTEMPT", "NEXT ATTEMPT", "LAST ERROR"]
        sections.append(output.table(titles, activities))
    if timers:
        sections.append(output.table(["TIMER", "FIRES", "SUMMARY"], timers))
    return "\n\n".join(sections)


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
