"""``orchestrator workflow ...``: what the HTTP API offers, on the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from orchestrator import config
from orchestrator.cli import exits, histories, output
from orchestrator.cli.engine import Engine, HttpEngine, pages
from orchestrator.cli.options import Limit, bounded
from orchestrator.cli.output import Format
from orchestrator.cli.watch import Watch
from orchestrator.codec.people import visible
from orchestrator.errors import CommandRejected, UsageError

Id = Annotated[str, Parameter(name="ID", help="The workflow id.")]
Output = Annotated[Format, Parameter(name=["--output", "-o"], help="How it is printed.")]
RunId = Annotated[str, Parameter(help="One run; default the current, or else the last one.")]
Reason = Annotated[str, Parameter(help="Why; it is kept in the history.")]
Inputs = Annotated[
    list[str] | None,
    Parameter(name=["--input", "-i"], negative=(), help="One argument, as JSON. Repeat it for each."),
]
InputFile = Annotated[
    Path | None,
    Parameter(help="All arguments: a file with a JSON list; '-' is stdin.", allow_leading_hyphen=True),
]
Query = Annotated[
    str, Parameter(name=["--query", "-q"], help="Such as 'WorkflowType = \"Order\" AND Attempt > 3'.")
]
Status = Literal["Running", "Blocked", "Completed", "Failed", "Canceled", "Terminated", "TimedOut"]


@Parameter(name="*")
@dataclass
class Where:
    """Which engine.

    Parameters
    ----------
    address:
        The engine's or a view's address, or that of Kafka's brokers, such as kafka://127.0.0.1:9092; default
        $ORCHESTRATOR_ADDRESS, or else http://127.0.0.1:7350.
    namespace:
        On Kafka: which one; default $ORCHESTRATOR_NAMESPACE, or else "default".
    kafka_config:
        On Kafka: a file with settings of its client, one name=value per line, in librdkafka's names.
    view:
        On Kafka: the address of a view, where lists, descriptions and histories are read; default
        $ORCHESTRATOR_VIEW.
    """

    address: str = ""
    namespace: str = ""
    kafka_config: Path | None = None
    view: str = ""


def start_(
    type: Annotated[str, Parameter(name="TYPE", help="The workflow type.")],
    /,
    *,
    id: Annotated[str, Parameter(help="The workflow id.")],
    input: Inputs = None,
    input_file: InputFile = None,
    id_reuse_policy: Literal["allow-duplicate", "allow-duplicate-failed-only", "reject-duplicate"] = (
        "allow-duplicate"
    ),
    run_timeout: Annotated[float | None, Parameter(help="Seconds until the run is timed out.")] = None,
    request_id: Annotated[
        str | None, Parameter(help="A repeat with the same one starts nothing new.")
    ] = None,
    output_: Output = "table",
    where: Where | None = None,
) -> None:
    """Start a workflow; returns when its start is durable."""
    body = {
        "type": type,
        "id": id,
        "input": _arguments(input, input_file),
        "id_reuse_policy": id_reuse_policy,
        "run_timeout_s": run_timeout,
        "request_id": request_id,
    }
    with engine_at(where) as engine:
        started = engine.start(body)
    columns = {"WORKFLOW ID": "workflow_id", "RUN ID": "run_id"}
    output.rows([started], columns, output_, key="workflow_id")


def result_(
    id: Id,
    /,
    *,
    run_id: RunId = "",
    timeout: Annotated[
        float | None,
        Parameter(help="Seconds to wait at most; default for ever.", validator=bounded("--timeout", 0)),
    ] = None,
    output_: Output = "table",
    where: Where | None = None,
) -> int:
    """Wait until a workflow is closed and print its result as JSON; exits with 5 if it did not complete."""
    with engine_at(where) as engine:
        found = engine.result(id, run_id, float("inf") if timeout is None else timeout)
    completed = found["status"] == "Completed"
    printers = {
        "table": lambda: output.to_json(found["result"]) if completed else "",
        "json": lambda: output.to_json(found),
        "jsonl": lambda: output.to_jsonl([found]),
        "ids": lambda: str(found["workflow_id"]),
    }
    output.write(printers[output_]())
    if completed:
        return exits.OK
    why = histories.failure_text(found["failure"])
    return exits.tell(
        f"workflow {id!r} did not complete, its status is {found['status']}{f': {why}' if why else ''}",
        exits.WORKFLOW_FAILED,
    )


def signal_(
    id: Id,
    name: Annotated[str, Parameter(name="NAME", help="The signal.")],
    /,
    *,
    input: Inputs = None,
    input_file: InputFile = None,
    run_id: RunId = "",
    where: Where | None = None,
) -> None:
    """Send a signal to a workflow; returns when it is durable."""
    with engine_at(where) as engine:
        engine.signal(id, name, {"input": _arguments(input, input_file), "run_id": run_id})
    output.note(f"signalled {id}: {name}")


def query_(
    id: Id,
    name: Annotated[str, Parameter(name="NAME", help="The query.")],
    /,
    *,
    input: Inputs = None,
    input_file: InputFile = None,
    run_id: RunId = "",
    output_: Output = "table",
    where: Where | None = None,
) -> None:
    """Ask a workflow something and print the answer, a text as it is, anything else as JSON."""
    _ask(id, name, {"input": _arguments(input, input_file), "run_id": run_id}, output_, where)


def stack_(
    id: Id,
    /,
    *,
    run_id: RunId = "",
    output_: Output = "table",
    where: Where | None = None,
) -> None:
    """Print where the code of a workflow waits: each of its tasks, with the lines, outermost first."""
    from orchestrator.workflow.stack import STACK_QUERY

    _ask(id, STACK_QUERY, {"input": [], "run_id": run_id}, output_, where)


def _ask(id: str, name: str, body: dict[str, Any], output_: str, where: Where | None) -> None:
    with engine_at(where) as engine:
        answer = engine.query(id, name, body)
    printers = {
        "table": lambda: visible(answer) if isinstance(answer, str) else output.to_json(answer),
        "json": lambda: output.to_json(answer),
        "jsonl": lambda: output.to_jsonl([answer]),
        "ids": lambda: id,
    }
    output.write(printers[output_]())


def cancel_(
    ids: Annotated[list[str], Parameter(name="ID", negative=(), allow_leading_hyphen=True)],
    /,
    *,
    reason: Reason = "",
    run_id: RunId = "",
    where: Where | None = None,
) -> int:
    """Ask workflows to cancel themselves; their code may clean up first. '-' reads ids from stdin."""
    return _close(ids, "cancel", {"reason": reason, "run_id": run_id}, where)


def terminate_(
    ids: Annotated[list[str], Parameter(name="ID", negative=(), allow_leading_hyphen=True)],
    /,
    *,
    reason: Reason = "",
    run_id: RunId = "",
    where: Where | None = None,
) -> int:
    """Close workflows at once; their code hears nothing of it. '-' reads ids from stdin."""
    return _close(ids, "terminate", {"reason": reason, "run_id": run_id}, where)


def describe_(
    id: Id,
    /,
    *,
    run_id: RunId = "",
    output_: Output = "table",
    watch: Watch | None = None,
    where: Where | None = None,
) -> None:
    """Show one run as it stands: input, result, what it waits for, what failed."""
    with engine_at(where) as engine:

        def look() -> None:
            found = msgspec.json.decode(engine.get("workflows", id, run_id=run_id))
            printers = {
                "table": lambda: histories.description_text(found),
                "json": lambda: output.to_json(found),
                "jsonl": lambda: output.to_jsonl([found]),
                "ids": lambda: str(found["row"]["workflow_id"]),
            }
            output.write(printers[output_]())

        (watch or Watch()).show(look, output_)


def show_(
    id: Id,
    /,
    *,
    run_id: RunId = "",
    follow: Annotated[
        bool, Parameter(name=["--follow", "-f"], negative=(), help="Go on until the run is closed.")
    ] = False,
    output_: Output = "table",
    where: Where | None = None,
) -> None:
    """Show the history of one run. '-o json' is the export format, which replays read; 'jsonl' is one
    turn per line."""
    with engine_at(where) as engine:
        if follow:
            histories.follow(engine, id, run_id, output_)
            return
        whole = histories.read_history(engine, id, run_id)
    printers = {
        "table": lambda: histories.history_text(whole),
        "json": lambda: output.to_json(whole),
        "jsonl": lambda: output.to_jsonl(whole.turns),
        "ids": lambda: whole.run_id,
    }
    output.write(printers[output_]())


def list_(
    *,
    query: Query = "",
    status: Annotated[Status | None, Parameter(help="Only runs with this status.")] = None,
    type: Annotated[str, Parameter(help="Only runs of this workflow type.")] = "",
    id_prefix: Annotated[str, Parameter(help="Only ids that begin so.")] = "",
    limit: Limit = 100,
    output_: Output = "table",
    watch: Watch | None = None,
    where: Where | None = None,
) -> None:
    """List the runs that match a query and all other filters, newest start first."""
    filters = {"q": query, "status": status, "type": type, "id_prefix": id_prefix}
    columns: dict[str, output.Column] = {
        "STATUS": "status",
        "TYPE": "workflow_type",
        "WORKFLOW ID": "workflow_id",
        "STARTED": "start_time_ms",
        "TOOK": histories.took,
        "EVENTS": "history_events",
        "STEP": histories.step,
        "TAGS": "tags",
        "LAST ERROR": "last_failure",
    }
    with engine_at(where) as engine:

        def look() -> None:
            rows = list(pages(engine, "workflows", filters, limit))
            output.rows(rows, columns, output_, key="workflow_id")
            if limit and len(rows) == limit:
                output.note(f"{limit} shown, there may be more: --limit 0 lists all")

        (watch or Watch()).show(look, output_)


def count_(
    *,
    query: Query = "",
    output_: Output = "table",
    watch: Watch | None = None,
    where: Where | None = None,
) -> None:
    """Count the runs that match a query, by status and type."""
    with engine_at(where) as engine:
        (watch or Watch()).show(
            lambda: _print_counts(msgspec.json.decode(engine.get("workflow-counts", q=query)), output_),
            output_,
        )


def _print_counts(found: dict[str, Any], format: Format) -> None:
    if format == "json":
        output.write(output.to_json(found))
        return
    columns: dict[str, output.Column] = {"STATUS": "status", "TYPE": "workflow_type", "RUNS": "runs"}
    output.rows(found["counts"], columns, format, key="workflow_type")
    if format == "table":
        output.note(f"{found['runs']:,} runs" + ("" if found["complete"] else " at least: there are more"))


def _close(ids: list[str], how: str, body: dict[str, Any], where: Where | None) -> int:
    """All of them, though one may be refused; returns the exit code of the first that was."""
    first = exits.OK
    with engine_at(where) as engine:
        for id in _ids(ids):
            try:
                engine.close(id, how, body)
                output.note(f"{how}: {id}")
            except (CommandRejected, UsageError) as error:
                code = exits.tell(str(error), exits.code_of(error))
                first = first or code
    return first


def _ids(ids: list[str]) -> Iterator[str]:
    for id in ids:
        yield from (line.strip() for line in sys.stdin if line.strip()) if id == "-" else (id,)


def _arguments(inputs: list[str] | None, file: Path | None) -> list[Any]:
    if file is None:
        return [_json(text, f"--input {text}") for text in inputs or ()]
    if inputs:
        raise exits.CommandUsage("give the arguments by --input or by --input-file, not by both")
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise exits.CommandUsage(f"--input-file {file} cannot be read: {error}") from error
    found = _json(text, f"--input-file {file}")
    if not isinstance(found, list):
        raise exits.CommandUsage(f"--input-file {file} holds no list; write the arguments as a JSON list")
    return found


def _json(text: str, what: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        shown = what if len(what) <= 100 else what[:100] + "..."
        raise exits.CommandUsage(
            f"{shown} is not JSON ({error}); texts need quotes: --input '\"o-17\"'"
        ) from error


def engine_at(where: Where | None) -> Engine:
    """The engine that a command's options name."""
    where = where or Where()
    address = where.address or os.environ.get(config.ADDRESS_VARIABLE) or config.ADDRESS
    if address.startswith("kafka://"):
        from orchestrator.cli.kafka_engine import KafkaEngine

        view = where.view or os.environ.get(config.VIEW_VARIABLE, "")
        return KafkaEngine(address, namespace=where.namespace, kafka_config=where.kafka_config, view=view)
    if where.namespace or where.kafka_config is not None or where.view:
        raise exits.CommandUsage(
            f"{address} is an engine, which has its own namespace, settings and views; give those only with "
            "an address such as kafka://127.0.0.1:9092"
        )
    advice = (
        f"start one with 'orchestrator dev', or name another with --address or ${config.ADDRESS_VARIABLE}"
    )
    return HttpEngine(address, advice)
