"""``orchestrator doctor``: what is wrong, and what to do; one line for each thing that was looked at."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from orchestrator.cli import exits, output
from orchestrator.cli.output import Format
from orchestrator.codec.people import visible
from orchestrator.log.findings import Finding

_COLORS = {"ok": 32, "warning": 33, "failed": 31}


def doctor(
    *,
    address: Annotated[
        str,
        Parameter(help="An engine's or a view's address; default $ORCHESTRATOR_ADDRESS, if no log is named."),
    ] = "",
    log: Annotated[
        str, Parameter(help="The brokers, such as kafka://127.0.0.1:9092; default $ORCHESTRATOR_LOG.")
    ] = "",
    namespace: Annotated[
        str, Parameter(help='On Kafka: which one; default $ORCHESTRATOR_NAMESPACE, or else "default".')
    ] = "",
    kafka_config: Annotated[
        Path | None, Parameter(help="On Kafka: a file with settings of its client, one name=value per line.")
    ] = None,
    output_: Annotated[Format, Parameter(name=["--output", "-o"], help="How it is printed.")] = "table",
) -> int:
    """Look at all of it; returns 1 if something failed."""
    from orchestrator.cli.checks import findings

    found = _print_each(findings(address, log, namespace, kafka_config), output_)
    return exits.ERROR if any(finding.state == "failed" for finding in found) else exits.OK


def _print_each(findings: Iterable[Finding], format: Format) -> list[Finding]:
    """Print each as soon as it is known, where the format allows that; returns all."""
    found = []
    for finding in findings:
        found.append(finding)
        if format in _LINES:
            print(_LINES[format](finding), flush=True)
    if format == "json":
        output.write(output.to_json([finding._asdict() for finding in found]))
    return found


def _line(finding: Finding) -> str:
    state = finding.state.ljust(9)
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        state = f"\x1b[{_COLORS[finding.state]}m{state}\x1b[0m"
    advice = f" → {finding.advice}" if finding.advice else ""
    return state + visible(f"{finding.what.ljust(16)}{finding.found}{advice}")


_LINES: dict[Format, Callable[[Finding], str]] = {
    "table": _line,
    "jsonl": lambda finding: output.to_jsonl([finding._asdict()]),
    "ids": lambda finding: finding.what,
}
"""Formats of which a finding is a line."""
