"""``orchestrator queue ...``: task queues."""

from __future__ import annotations

import msgspec

from orchestrator.cli import output
from orchestrator.cli.watch import Watch
from orchestrator.cli.workflow import Output, Where, engine_at

_COLUMNS: dict[str, output.Column] = {
    "QUEUE": "task_queue",
    "WAITING": lambda queue: str(queue["waiting"]),
    "OLDEST": "oldest_time_ms",
    "WORKERS": lambda queue: str(queue["workers"]) if queue["workers"] else "none",
    "SLOTS": "slots",
    "RUNNING": "running",
}


def list_(*, output_: Output = "table", watch: Watch | None = None, where: Where | None = None) -> None:
    """Show the task queues: how much waits, since when, and who serves them."""
    with engine_at(where) as engine:

        def look() -> None:
            queues = msgspec.json.decode(engine.get("queues"))["queues"]
            output.rows(queues, _COLUMNS, output_, key="task_queue")

        (watch or Watch()).show(look, output_)
