"""Does today's code still do what a history says? To be asked before a deploy.

::

    replayer = Replayer([Order])
    for file in Path("tests/histories").glob("*.json"):
        replayer.replay(file.read_bytes())     # raises NotDeterministic if it does not

Histories come from ``orchestrator workflow show ID -o json``, or from ``client.history(id)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.coordinator.runs import Replay, make_instance
from orchestrator.errors import NotDeterministic, UsageError
from orchestrator.protocol.events import WorkflowStarted
from orchestrator.protocol.records import Turn
from orchestrator.protocol.views import History
from orchestrator.workflow import determinism
from orchestrator.workflow.definition import WorkflowDefinition, definition_of
from orchestrator.workflow.instance import Instance
from orchestrator.workflow.outcomes import WorkflowCodeError


class Replayer:
    """Runs the code of workflows against histories, as the engine does when it takes over a run.

    Nothing is executed but workflow code: no activity, no clock, no engine.

    Args:
        workflows: classes that ``@workflow.defn`` decorates.

    Raises:
        DefinitionError: one of them is no workflow.
    """

    def __init__(self, workflows: Sequence[type]) -> None:
        """Know the workflows by their names."""
        determinism.install()
        self._definitions = {definition.name: definition for definition in map(definition_of, workflows)}

    def replay(self, history: History | bytes | str) -> None:
        """Replay one run, closed or open, from its first turn to its last.

        Args:
            history: the run, or its export as JSON.

        Raises:
            NotDeterministic: the code does something else than history says, or raises; the message has
                both sides, or the traceback.
            UsageError: the history is none, or of an unknown type of workflow.
        """
        run = history if isinstance(history, History) else _decode(history)
        definition = self._definitions.get(run.workflow_type)
        if definition is None:
            known = ", ".join(sorted(self._definitions)) or "none"
            raise UsageError(
                f"the history of {run.workflow_id!r} is of the workflow type {run.workflow_type!r}; "
                f"known here: {known}. Pass its class to Replayer([...])"
            )
        _check_whole(run)
        _replay(definition, run)


def _replay(definition: WorkflowDefinition, run: History) -> None:
    def make(started: WorkflowStarted, turn: Turn) -> Instance:
        return make_instance(
            definition,
            started,
            workflow_id=turn.workflow_id,
            run_id=turn.run_id,
            start_time_ms=turn.time_ms,
        )

    replay = Replay(make)
    try:
        replay.advance(run.turns, lambda: False)
    except WorkflowCodeError as error:
        raise NotDeterministic(
            f"replay of turn {replay.turn} of {run.workflow_id!r}: the code raised {error}\n"
            f"{error.failure.stack}"
        ) from error
    finally:
        if replay.instance is not None:
            replay.instance.close()


def _decode(exported: bytes | str) -> History:
    try:
        return msgspec.json.decode(exported, type=History)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"this is no history: {error}; export one with 'orchestrator workflow show ID -o json'"
        ) from error


def _check_whole(run: History) -> None:
    """A part of a history proves nothing, whatever a replay of it says."""
    next_event_id = 1
    for number, turn in enumerate(run.turns, start=1):
        if (turn.turn, turn.first_event_id) != (number, next_event_id):
            raise UsageError(
                f"the history of {run.workflow_id!r} is not whole: turn {turn.turn} with event "
                f"{turn.first_event_id} stands where turn {number} with event {next_event_id} is expected"
            )
        next_event_id += len(turn.events)
    if not run.turns or not isinstance(run.turns[0].events[0], WorkflowStarted):
        raise UsageError(f"the history of {run.workflow_id!r} does not begin with WorkflowStarted")
