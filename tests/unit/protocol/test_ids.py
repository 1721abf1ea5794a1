"""What can be a workflow id."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.protocol.ids import check_workflow_id


@pytest.mark.parametrize("workflow_id", ["order-17", "a/b", "...", ".a", "ä", "x" * 1_000])
def test_what_can_be_a_workflow_id(workflow_id: str) -> None:
    assert check_workflow_id(workflow_id) == workflow_id


@pytest.mark.parametrize(
    ("workflow_id", "words"),
    [
        ("", "the workflow id is empty"),
        (".", "the workflow id is '.', which means a folder in an address"),
        ("..", "the workflow id is '..', which means a folder in an address"),
        ("x" * 1_001, "has 1001 characters"),
        ("a\nb", "contains control characters"),
        ("\ud800", "contains control characters"),
        (5, "the workflow id is 5; give text"),
        (None, "the workflow id is None; give text"),
    ],
)
def test_what_cannot(workflow_id: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_workflow_id(workflow_id)
