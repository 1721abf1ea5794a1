from __future__ import annotations

from orchestrator.demo.evidence import Evidence, Summary, failures, summarize
from orchestrator.protocol.values import WorkflowStatus
from tests.unit.demo.conftest import cut


def test_a_completed_run(evidence: Evidence) -> None:
    found = summarize(evidence.after["m-7732"])
    assert (found.status, found.steps, found.attempts) == (WorkflowStatus.COMPLETED, 11, 12)
    assert found.error == ""
    assert found.time_s is not None
    assert 0 < found.time_s < 60


def test_a_failed_run_says_why_in_the_words_of_the_first_cause(evidence: Evidence) -> None:
    found = summarize(evidence.after["m-7733"])
    assert (found.status, found.error) == (WorkflowStatus.FAILED, "risk score 97 is above 80")
    assert found.tags == ("compensation-deferred",)


def test_an_open_run_has_no_time(evidence: Evidence) -> None:
    assert summarize(cut(evidence.after["m-7731"], 1)) == Summary(WorkflowStatus.RUNNING, 0, 0, "", (), None)


def test_failures_are_told_in_order(evidence: Evidence) -> None:
    assert failures(evidence.after["o-1003"]) == ["card declined"]
