"""The bodies of requests and answers that people write and read: no payloads, only plain JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.protocol.values import IdReusePolicy, WorkflowStatus


class Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of requests: a field that is misspelt is refused."""


class Start(Body, kw_only=True):
    """Start a workflow. ``input`` holds the arguments of its ``run``, in order. Times in seconds."""

    type: str
    id: str
    input: list[Any] = []
    id_reuse_policy: IdReusePolicy = IdReusePolicy.ALLOW_DUPLICATE
    run_timeout_s: float | None = None
    memo: dict[str, Any] = {}
    summary: str = ""
    request_id: str | None = None


class Call(Body, kw_only=True):
    """Signal or query a workflow. ``input`` holds the arguments of its handler, in order."""

    input: list[Any] = []
    run_id: str = ""
    request_id: str | None = None


class Close(Body, kw_only=True):
    """Cancel or terminate a workflow, for this reason."""

    reason: str = ""
    run_id: str = ""
    request_id: str | None = None


class Started(msgspec.Struct, kw_only=True):
    """A workflow was started."""

    workflow_id: str
    run_id: str


class Answer(msgspec.Struct, kw_only=True):
    """What a query returned."""

    result: Any


class Result(msgspec.Struct, kw_only=True):
    """How a run stands: ``result`` if it completed, ``failure`` if it ended otherwise."""

    workflow_id: str
    run_id: str
    status: WorkflowStatus
    result: Any = None
    failure: Any = None
    tags: list[str] = []
