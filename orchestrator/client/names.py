"""From what a caller passes, a decorated method or a name, to the name that goes into the command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from orchestrator.errors import DefinitionError, UsageError
from orchestrator.workflow.definition import Handler, WorkflowDefinition, definition_of

_ROLE = "__orchestrator_role__"
_WORKFLOW = "__orchestrator_workflow__"


class Called(NamedTuple):
    """A name, and the type to decode the answer as (None: plain types)."""

    name: str
    result_hint: Any = None


@lru_cache(maxsize=1_024)  # a program starts some hundred kinds of workflows, each of them often
def workflow_called(workflow: Callable[..., Any] | type | str, arguments: int) -> Called:
    """A workflow by its class, by its ``@workflow.run`` method, or by the name of its type.

    Raises:
        DefinitionError: it is no workflow, or does not take that many arguments.
    """
    if isinstance(workflow, str):
        return Called(_not_empty(workflow, "workflow type"))
    definition = definition_of(workflow) if isinstance(workflow, type) else _definition_of_run(workflow)
    definition.run.hints_for(arguments)
    return Called(definition.name, definition.run.result_hint)


def handler_called(kind: str, handler: Callable[..., Any] | str, arguments: int) -> Called:
    """A signal or query by its decorated method, or by its name; ``kind`` is ``signal`` or ``query``.

    Raises:
        DefinitionError: it is not of that kind, or does not take that many arguments.
    """
    if isinstance(handler, str):
        return Called(_not_empty(handler, kind))
    role = getattr(handler, _ROLE, None)
    if role is None or role.kind != kind:
        raise DefinitionError(
            f"{handler!r} is not a {kind}; pass a method that @workflow.{kind} decorates, or a name"
        )
    known = Handler(role.name, handler)
    known.hints_for(arguments)
    return Called(role.name, known.result_hint)


def _definition_of_run(run: Callable[..., Any]) -> WorkflowDefinition:
    if not inspect.isfunction(run) or getattr(getattr(run, _ROLE, None), "kind", "") != "run":
        raise DefinitionError(f"{run!r} is not a workflow; pass its @workflow.run method, such as Order.run")
    definition = getattr(run, _WORKFLOW, None)
    if isinstance(definition, WorkflowDefinition):
        return definition
    # A function does not know its class, so the class is looked up where the function was written.
    outermost, *inner = run.__qualname__.split(".")[:-1]
    owner: Any = run.__globals__.get(outermost)
    for part in inner:
        owner = getattr(owner, part, None)
    if not isinstance(owner, type) or inspect.getattr_static(owner, run.__name__, None) is not run:
        raise DefinitionError(
            f"which class {run.__qualname__} belongs to cannot be told, since it is not at module level; "
            "pass the class itself, or the name of its type"
        )
    return definition_of(owner)


def _not_empty(name: str, what: str) -> str:
    if not name:
        raise UsageError(f"the name of the {what} is empty")
    return name
