"""How a workflow is started: the options that callers give, and what becomes of them in the command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Required, TypedDict

from orchestrator.errors import UsageError
from orchestrator.protocol.ids import check_workflow_id
from orchestrator.protocol.texts import check_summary, check_text, check_word
from orchestrator.protocol.values import IdReusePolicy
from orchestrator.workflow.durations import Duration, to_positive_ms


class StartOptions(TypedDict, total=False):
    """How a workflow is started.

    Attributes:
        id: the workflow id: at most one run of an id is open at a time.
        id_reuse_policy: whether the id may be used again after its last run closed; default: it may.
        run_timeout: seconds or timedelta after which the run is closed as timed out; default never.
        memo: values for people, by name; they are shown on the run's page.
        summary: one line for people.
        request_id: a repeat with the same id starts nothing new; default a new one.
        timeout: seconds to wait for the engine's answer, default 30.
    """

    id: Required[str]
    id_reuse_policy: IdReusePolicy
    run_timeout: Duration | None
    memo: Mapping[str, Any]
    summary: str
    request_id: str | None
    timeout: float | None


_OPTIONS: Final = frozenset(StartOptions.__annotations__)

_INSTEAD: Final = {
    "args": "pass the arguments of run one by one, before the options",
    "execution_timeout": "run_timeout bounds a run, and there is one run for each start",
    "task_queue": "a workflow runs in any coordinator that has its module; activities have a task_queue",
    "task_timeout": "code that does not give way for two seconds is stopped, always",
}
"""Options that Temporal has, and what there is here."""


def command_fields(options: StartOptions) -> dict[str, Any]:
    """The fields of a ``StartWorkflow`` that follow from options; but for those that the converter writes.

    Raises:
        UsageError: an option is unknown or cannot be, or there is no id.
    """
    if unknown := sorted(options.keys() - _OPTIONS):
        hints = "".join(f"; {name}: {_INSTEAD[name]}" for name in unknown if name in _INSTEAD)
        known = ", ".join(sorted(_OPTIONS))
        raise UsageError(f"a start has no option {', '.join(unknown)}; there are {known}{hints}")
    if "id" not in options:
        raise UsageError("the workflow has no id; give each one an id of yours, such as id='order-17'")
    memo = options.get("memo")
    if not isinstance(memo, Mapping | None):
        raise UsageError(f"memo is {memo!r}; give a dict of names and values")
    for name in memo or ():
        check_text(name, "a name in memo")
    return {
        "workflow_id": check_workflow_id(options["id"]),
        "id_reuse_policy": check_word(
            IdReusePolicy, options.get("id_reuse_policy", IdReusePolicy.ALLOW_DUPLICATE), "id_reuse_policy"
        ),
        "run_timeout_ms": to_positive_ms(options.get("run_timeout"), "run_timeout"),
        "summary": check_summary(options.get("summary", "")),
    }
