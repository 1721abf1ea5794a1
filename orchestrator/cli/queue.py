"""``orchestrator queue ...``: task queues."""

from __future__ import annotations

import msgspec

from orchestrator.cli import output
from orchestrator.cli.workflow import Output, Where, engine_at


def list_(*, output_: Output = "table", where: Where | None = None) -> None:
    """Show the task queues: how much waits, since when, and who serves them."""
    with engine_at(where) as engine:
        queues = msgspec.json.decode(engine.get("queues"))["queues"]
    columns: dict[str, output.Column] = {
        "QUEUE": "task_queue",
        "WAITING": lambda queue: str(queue["waiting"]),
        "OLDEST": "oldest_time_ms",
        "WORKERS": lambda queue: str(queue["workers"]) if queue["workers"] else "none",
        "SLOTS": "slots",
        "RUNNING": "running",
    }
    output.rows(queues, columns, output_, key="task_queue")
