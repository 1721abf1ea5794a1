"""The logger for workflow code: it names the run, and is silent when an activation happens again."""

from __future__ import annotations

import logging
from typing import Any

from orchestrator.workflow.instance import current
from orchestrator.workflow.loop import outside


class WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds ``workflow_id``, ``run_id`` and ``workflow_type`` to each record, as attributes.

    Silent during replay. Outside of a workflow it is the plain logger.
    """

    def isEnabledFor(self, level: int) -> bool:
        """Whether a record of this level would be logged now."""
        instance = current()
        return super().isEnabledFor(level) and not (instance is not None and instance.silent)

    def log(self, level: int, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Log a record. Handlers may use clocks and files: they are no part of the workflow."""
        instance = current()
        if instance is None:
            self.logger.log(level, msg, *args, **_one_frame_up(kwargs))
            return
        if not self.isEnabledFor(level):
            return
        ids = {
            "workflow_id": instance.workflow_id,
            "run_id": instance.run_id,
            "workflow_type": instance.definition.name,
        }
        extra = {**ids, **(kwargs.get("extra") or {})}
        with outside():
            self.logger.log(level, msg, *args, **{**_one_frame_up(kwargs), "extra": extra})


def _one_frame_up(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The place of a record is where this module was called."""
    return {**kwargs, "stacklevel": kwargs.get("stacklevel", 1) + 1}


logger = WorkflowLogger(logging.getLogger("orchestrator.workflow"), {})
"""Log from workflow code with this one."""
