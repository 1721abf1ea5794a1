from __future__ import annotations

import inspect

import pytest

from orchestrator import errors
from orchestrator.log import wire


def test_subclasses_stand_before_their_bases() -> None:
    for place, row in enumerate(wire.ERRORS):
        assert not any(issubclass(later.cls, row.cls) for later in wire.ERRORS[place + 1 :]), row.code


@pytest.mark.parametrize("row", wire.ERRORS, ids=lambda row: row.code)
def test_errors_survive_the_way(row: wire.Row) -> None:
    status, problem = wire.problem_of(row.cls("what happened"))
    back = wire.error_of(problem, status)
    assert (type(back), str(back), status) == (row.cls, "what happened", row.status)


def test_the_run_that_stands_in_the_way_is_told() -> None:
    status, problem = wire.problem_of(errors.WorkflowAlreadyStarted("in use", run_id="r"))
    back = wire.error_of(problem, status)
    assert isinstance(back, errors.WorkflowAlreadyStarted)
    assert back.run_id == "r"


def test_every_error_has_a_status() -> None:
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.OrchestratorError):
            assert any(issubclass(cls, row.cls) for row in wire.ERRORS), cls


@pytest.mark.parametrize(("status", "cls"), [(422, errors.UsageError), (500, errors.Unavailable)])
def test_codes_of_newer_engines_are_told_by_their_status(status: int, cls: type[Exception]) -> None:
    assert type(wire.error_of(wire.Problem(error="new", message=""), status)) is cls
