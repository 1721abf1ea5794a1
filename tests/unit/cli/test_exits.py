from __future__ import annotations

import pytest

from orchestrator import errors
from orchestrator.cli import exits


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.WorkflowNotFound("x"), 4),
        (errors.UnknownName("x"), 4),
        (errors.WorkflowFailure("x", status="Failed"), 5),
        (errors.WorkflowAlreadyStarted("x"), 1),
        (errors.Unavailable("x"), 1),
        (errors.PortInUse("x"), 1),
        (errors.PayloadError("x"), 1),
        (exits.WaitTimedOut("x"), 124),
        (exits.CommandUsage("x"), 2),
        (errors.UsageError("x"), 2),
        (errors.QueryError("x", column=1), 2),
        (errors.DefinitionError("x"), 1),
    ],
)
def test_the_exit_code_says_what_sort_of_error_it_was(error: errors.OrchestratorError, code: int) -> None:
    assert exits.code_of(error) == code


def test_an_error_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    exits.tell("\x1b[2Jred", 1)
    assert capsys.readouterr().err == "error: \\x1b[2Jred\n"


def test_errors_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits.tell("no", 1, "try yes") == 1
    assert capsys.readouterr() == ("", "error: no (try yes)\n")
