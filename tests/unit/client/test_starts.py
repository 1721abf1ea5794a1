"""The options of a start: what becomes of them, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.client.starts import StartOptions, command_fields
from orchestrator.errors import UsageError
from orchestrator.protocol.values import IdReusePolicy


def test_what_becomes_of_options() -> None:
    options: StartOptions = {
        "id": "order-17",
        "id_reuse_policy": IdReusePolicy.REJECT_DUPLICATE,
        "run_timeout": timedelta(hours=1),
        "memo": {"shop": "Bern"},
        "summary": "two lamps",
        "request_id": "once",
        "timeout": 5,
    }
    assert options.keys() == StartOptions.__annotations__.keys()
    assert command_fields(options) == {
        "workflow_id": "order-17",
        "id_reuse_policy": IdReusePolicy.REJECT_DUPLICATE,
        "run_timeout_ms": 3_600_000,
        "summary": "two lamps",
    }


def test_a_reuse_policy_may_be_said_by_its_value() -> None:
    fields = command_fields({"id": "a", "id_reuse_policy": "reject-duplicate"})  # type: ignore[typeddict-item]
    assert fields["id_reuse_policy"] is IdReusePolicy.REJECT_DUPLICATE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "the workflow has no id; give each one an id of yours, such as id='order-17'"),
        ({"id": 5}, "the workflow id is 5; give text"),
        ({"id": ".."}, "which means a folder in an address"),
        (
            {"id": "a", "run_timout": 1},
            "a start has no option run_timout; there are id, .*run_timeout",
        ),
        (
            {"id": "a", "x": 1, "execution_timeout": 1, "task_queue": "nobody"},
            "no option execution_timeout, task_queue, x; there are id, .*; "
            "execution_timeout: run_timeout bounds a run.*; task_queue: a workflow runs in any coordinator",
        ),
        ({"id": "a", "args": [1]}, "args: pass the arguments of run one by one, before the options"),
        (
            {"id": "a", "id_reuse_policy": "REJECT"},
            "id_reuse_policy is .REJECT.; give one of IdReusePolicy",
        ),
        ({"id": "a", "run_timeout": 0}, "run_timeout is 0"),
        ({"id": "a", "run_timeout": "1 h"}, "run_timeout is '1 h'; give seconds or a timedelta"),
        ({"id": "a", "summary": None}, "summary is None; give text"),
        ({"id": "a", "memo": ["x"]}, "memo is .*; give a dict"),
        ({"id": "a", "memo": {5: "x"}}, "a name in memo is 5; give text"),
    ],
)
def test_what_is_refused(options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        command_fields(options)
