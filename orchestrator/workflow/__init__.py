"""What authors of workflows import, and what runs their code.

Write ``from orchestrator import workflow``, then ``@workflow.defn``, ``workflow.execute_activity`` and so
on; names and meaning follow Temporal's Python SDK. What runs the code is in
:mod:`orchestrator.workflow.instance`; what makes plain Python deterministic is in ``loop``, ``ordered``
and ``determinism``.
"""

from orchestrator.protocol.values import CancellationType as ActivityCancellationType
from orchestrator.workflow.api import (
    ActivityOptions,
    WorkflowInfo,
    add_tag,
    all_handlers_finished,
    cancellation_reason,
    execute_activity,
    in_workflow,
    info,
    now,
    publish,
    random,
    set_query_handler,
    set_signal_handler,
    sleep,
    start_activity,
    time,
    time_ns,
    uuid4,
    wait_condition,
)
from orchestrator.workflow.definition import (
    WorkflowDefinition,
    definition_of,
    defn,
    find_definitions,
    init,
    query,
    run,
    signal,
)
from orchestrator.workflow.handles import ActivityHandle
from orchestrator.workflow.logs import logger
from orchestrator.workflow.retry import RetryPolicy

__all__ = [
    "ActivityCancellationType",
    "ActivityHandle",
    "ActivityOptions",
    "RetryPolicy",
    "WorkflowDefinition",
    "WorkflowInfo",
    "add_tag",
    "all_handlers_finished",
    "cancellation_reason",
    "definition_of",
    "defn",
    "execute_activity",
    "find_definitions",
    "in_workflow",
    "info",
    "init",
    "logger",
    "now",
    "publish",
    "query",
    "random",
    "run",
    "set_query_handler",
    "set_signal_handler",
    "signal",
    "sleep",
    "start_activity",
    "time",
    "time_ns",
    "uuid4",
    "wait_condition",
]
