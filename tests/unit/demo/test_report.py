from __future__ import annotations

import io

import pytest
from rich.console import Console

from orchestrator.demo.evidence import Evidence
from orchestrator.demo.report import Report


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def report(out: io.StringIO) -> Report:
    return Report(Console(file=out, width=200), Console(file=out, width=200))


def test_the_table_has_a_line_for_each_run(report: Report, out: io.StringIO, evidence: Evidence) -> None:
    report.table(evidence.after)
    lines = {line.split()[0]: line for line in out.getvalue().splitlines() if line}
    assert lines["id"].split() == ["id", "status", "steps", "attempts", "error", "time"]
    assert set(lines) == {"id", *evidence.after}
    assert "Failed" in lines["m-9001-BAD"]
    assert "sanctions hit" in lines["m-9001-BAD"]
    assert "[compensation-deferred]" in lines["m-7733"]
    assert "recovered: Unsteady Bank closed the connection" in lines["m-7732"]
    assert "\x1b" not in out.getvalue()


def test_the_verdict_is_good_if_no_check_finds_anything(report: Report, out: io.StringIO) -> None:
    assert report.verdict([("all is well", []), ("so is this", [])])
    assert out.getvalue().splitlines() == ["✓ all is well", "✓ so is this"]


def test_the_verdict_names_what_is_wrong(report: Report, out: io.StringIO) -> None:
    assert not report.verdict([("all is well", []), ("ids have no gap", ["o-1: turn 3 is missing"])])
    assert out.getvalue().splitlines()[:3] == [
        "✓ all is well",
        "✗ ids have no gap",
        "    o-1: turn 3 is missing",
    ]
