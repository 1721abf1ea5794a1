"""The evidence of a real run of the demo, from ``tests/fixtures``, to be spoiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator.contrib.world import Effect, Execution
from orchestrator.demo.evidence import Evidence
from orchestrator.protocol.views import History

FIXTURES = Path(__file__).parent.parent.parent / "fixtures"


class Witness(msgspec.Struct):
    killed_ms: int
    turns_before: dict[str, int]
    ran_before: int
    executions: list[Execution]
    effects: list[Effect]


def histories() -> dict[str, History]:
    files = sorted((FIXTURES / "histories").glob("*.json"))
    found = [msgspec.json.decode(file.read_bytes(), type=History) for file in files]
    return {history.workflow_id: history for history in found}


@pytest.fixture
def evidence() -> Evidence:
    witness = msgspec.json.decode((FIXTURES / "witness.json").read_bytes(), type=Witness)
    after = histories()
    before = {name: cut(after[name], turns) for name, turns in witness.turns_before.items()}
    return Evidence(witness.killed_ms, before, after, witness.ran_before, witness.executions, witness.effects)


def cut(history: History, turns: int) -> History:
    """As it was after so many turns."""
    return with_turns(history, history.turns[:turns])


def with_turns(history: History, turns: Any) -> History:
    return msgspec.structs.replace(history, turns=tuple(turns))
