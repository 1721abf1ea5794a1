"""``orchestrator cluster``: who runs, who owns which partitions, and how far everything is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.cli import output
from orchestrator.cli.watch import Watch
from orchestrator.cli.workflow import Output, Where, engine_at
from orchestrator.codec.people import ranges, span_of


def cluster(*, output_: Output = "table", watch: Watch | None = None, where: Where | None = None) -> None:
    """Show coordinators with their partitions, workers with their queues, versions and lag."""
    with engine_at(where) as engine:
        (watch or Watch()).show(lambda: _print(msgspec.json.decode(engine.get("cluster")), output_), output_)


def _print(found: Mapping[str, Any], format: output.Format) -> None:
    if format == "json":
        output.write(output.to_json(found))
        return
    members = [
        {"role": role, "name": seen["beat"][role], **seen}
        for role in ("coordinator", "worker")
        for seen in found[f"{role}s"]
    ]
    output.rows(members, _COLUMNS, format, key="name")
    if format == "table":
        output.note(_progress(found))


def _partitions(beat: Mapping[str, Any]) -> str:
    return f"partitions {ranges(beat['partitions'])}" if beat["partitions"] else "no partition"


def _queues(beat: Mapping[str, Any]) -> str:
    return ", ".join(beat["task_queues"]) + (" (draining)" if beat["draining"] else "")


_SERVES = {"coordinator": _partitions, "worker": _queues}
"""What a member serves, by its role."""


def _running(beat: Mapping[str, Any]) -> str:
    return f"{beat['running']}/{beat['slots']}" if "slots" in beat else ""


_COLUMNS: dict[str, output.Column] = {
    "ROLE": "role",
    "NAME": "name",
    "IDENTITY": lambda member: str(member["beat"]["identity"]),
    "SERVES": lambda member: _SERVES[member["role"]](member["beat"]),
    "RUNNING": lambda member: _running(member["beat"]),
    "VERSION": lambda member: str(member["beat"]["version"]),
    "SILENT": lambda member: span_of(member["silent_ms"]),
}


def _progress(found: Mapping[str, Any]) -> str:
    partitions = found["partitions"]
    lag = sum(one["lag_records"] for one in partitions)
    missing = [one["partition"] for one in partitions if not one["ready"]]
    words = [f"{len(partitions)} partitions, {lag:,} records behind, {found['dead_letters']:,} dead letters"]
    if missing:
        words.append(f"not shown yet: partitions {ranges(missing)}")
    words += [f"partition {one['partition']}: {one['trouble']}" for one in partitions if one["trouble"]]
    if found["trouble"]:
        words.append(found["trouble"])
    return "; ".join(words)
