"""One trace from the client's call to the last activity, in one process, and over a kill -9 in the middle."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent

RUN = [
    "RunWorkflow:Order",
    "  RunActivity:charge failed",
    "    call the bank",
    "  RunActivity:charge completed",
    "    call the bank",
    "  RunActivity:ship completed",
    "    print the label",
]
STARTED = ["StartWorkflow:Order", *(f"  {line}" for line in RUN)]


def run(folder: Path, what: str) -> int:
    """The exit code of a process that does this."""
    command = [sys.executable, "-m", "tests.e2e.traced", folder / "data", folder / "spans", what]
    done = subprocess.run(command, cwd=ROOT, timeout=60, check=False, stderr=subprocess.PIPE)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode


def spans(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "spans").read_text().splitlines()]


def tree(found: list[dict[str, Any]], parent: str | None = None, depth: int = 0) -> list[str]:
    """The spans below one, as text, in the order in which they began."""
    lines: list[str] = []
    below = [span for span in found if span["parent_id"] == parent]
    for span in sorted(below, key=lambda span: span["start_time"]):
        status = span["attributes"].get("orchestrator.status", "") if "Activity" in span["name"] else ""
        lines.append("  " * depth + f"{span['name']} {status}".rstrip())
        lines += tree(found, span["context"]["span_id"], depth + 1)
    return lines


def test_a_call_its_run_and_all_attempts_are_one_trace(tmp_path: Path) -> None:
    run(tmp_path, "whole")
    found = spans(tmp_path)
    assert tree(found) == [*STARTED, "SignalWorkflow:approve"]
    first = next(span for span in found if span["name"] == "StartWorkflow:Order")
    (closed,) = (span for span in found if span["name"] == "RunWorkflow:Order")
    of_run = [span for span in found if span["name"] != "SignalWorkflow:approve"]
    assert {span["context"]["trace_id"] for span in of_run} == {first["context"]["trace_id"]}
    assert first["attributes"]["orchestrator.run_id"] == closed["attributes"]["orchestrator.run_id"]
    failed = next(span for span in found if tree([span | {"parent_id": None}])[0] == RUN[1].strip())
    assert failed["status"]["status_code"] == "ERROR"
    assert failed["attributes"]["orchestrator.attempt"] == 1
    assert failed["events"][0]["attributes"]["exception.type"] == "ConnectionError"


@pytest.mark.timeout(200)
def test_a_run_that_outlives_a_kill_9_is_one_span_and_nothing_is_told_twice(tmp_path: Path) -> None:
    assert run(tmp_path, "begin") == -signal.SIGKILL
    before = spans(tmp_path)
    names = [span["name"] for span in before]
    assert "RunWorkflow:Order" not in names, "a run is told of when it is closed"
    assert names.count("RunActivity:charge") == 2
    run(tmp_path, "end")
    run(tmp_path, "look")
    found = spans(tmp_path)
    assert tree(found) == [*STARTED, "SignalWorkflow:approve"]
    ids = [span["context"]["span_id"] for span in found]
    assert len(ids) == len(set(ids))
