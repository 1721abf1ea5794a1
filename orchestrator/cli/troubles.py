"""``orchestrator failures`` and ``orchestrator stuck``: what somebody should look into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from orchestrator.cli import output
from orchestrator.cli.engine import pages
from orchestrator.cli.histories import attempt
from orchestrator.cli.options import Limit, bounded
from orchestrator.cli.watch import Watch
from orchestrator.cli.workflow import Output, Where, engine_at
from orchestrator.protocol.views import STUCK_ATTEMPTS, STUCK_WAITING_MS

MAX_GROUPS = 1_000
"""An engine tells of no more at a time."""


def failures(
    *,
    limit: Annotated[
        int,
        Parameter(
            help=f"At most so many groups; 0 for all, up to {MAX_GROUPS:,}.",
            validator=bounded("--limit", 0, MAX_GROUPS),
        ),
    ] = 20,
    output_: Output = "table",
    watch: Watch | None = None,
    where: Where | None = None,
) -> None:
    """Group the runs that failed, or fail now, by what their failures have in common."""
    with engine_at(where) as engine:

        def look() -> None:
            _print_groups(msgspec.json.decode(engine.get("failures", limit=limit or MAX_GROUPS)), output_)

        (watch or Watch()).show(look, output_)


def _print_groups(found: Mapping[str, Any], format: output.Format) -> None:
    columns: dict[str, output.Column] = {
        "RUNS": "runs",
        "TYPE": "workflow_type",
        "STEP": "activity_type",
        "ERROR": lambda group: ": ".join(filter(None, (group["failure_type"], group["message"]))),
        "FIRST": "first_time_ms",
        "LAST": "last_time_ms",
        "EXAMPLE": "workflow_id",
        "GROUP": "fingerprint",
    }
    output.rows(found["groups"], columns, format, key="fingerprint")
    if found["more"]:
        output.note(f"{found['more']:,} more groups have fewer runs: --limit 0 shows up to {MAX_GROUPS:,}")
    if found["groups"]:
        output.note("the runs of a group: orchestrator workflow list -q 'FailureGroup = \"...\"'")


def stuck(
    *,
    attempts: Annotated[
        int,
        Parameter(help="Activities at this attempt or a later one.", validator=bounded("--attempts", 1)),
    ] = STUCK_ATTEMPTS,
    waiting: Annotated[
        float,
        Parameter(help="Activities without a worker for so many seconds.", validator=bounded("--waiting", 0)),
    ] = STUCK_WAITING_MS / 1_000,
    limit: Limit = 100,
    output_: Output = "table",
    watch: Watch | None = None,
    where: Where | None = None,
) -> None:
    """Show blocked runs, and activities that fail again and again, wait long, or have no workers."""
    filters = {"attempts": attempts, "waiting_s": waiting}
    with engine_at(where) as engine:
        (watch or Watch()).show(
            lambda: _print_stuck(list(pages(engine, "stuck", filters, limit)), limit, output_), output_
        )


def _print_stuck(rows: list[dict[str, Any]], limit: int, format: output.Format) -> None:
    columns: dict[str, output.Column] = {
        "WHY": "reasons",
        "TYPE": "workflow_type",
        "WORKFLOW ID": "workflow_id",
        "STEP": "activity_type",
        "QUEUE": "task_queue",
        "ATTEMPT": attempt,
        "SINCE": "since_time_ms",
        "NEXT": "next_retry_time_ms",
        "LAST ERROR": "last_failure",
    }
    output.rows(rows, columns, format, key="workflow_id")
    if limit and len(rows) == limit:
        output.note(f"{limit} shown, there may be more: --limit 0 lists all")
