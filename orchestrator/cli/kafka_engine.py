"""The engine as commands see it, on Kafka: commands go to its topics, reads to a view."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from orchestrator import config
from orchestrator.api.plain import plain
from orchestrator.cli.engine import HttpEngine
from orchestrator.cli.exits import CommandUsage, WaitTimedOut
from orchestrator.cli.kafka import Cluster
from orchestrator.client.client import Client
from orchestrator.errors import Unavailable
from orchestrator.protocol.values import IdReusePolicy

T = TypeVar("T")

LEAST_WAIT_S = 2.0
"""A run that is closed already is told of in milliseconds: so much time has whoever would not wait at all."""


class KafkaEngine:
    """A namespace on Kafka. Nothing is connected to before it is needed: to Kafka for commands, to the view
    for reads.
    """

    def __init__(self, address: str, *, namespace: str, kafka_config: Path | None, view: str) -> None:
        self._address, self._namespace, self._config = address, namespace, kafka_config
        advice = f"start one with 'orchestrator view', or name another with --view or ${config.VIEW_VARIABLE}"
        self._view = HttpEngine(view, advice) if view else None
        self._runner = asyncio.Runner()
        self._client: Client | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._runner.run(self._client.close())
        self._runner.close()
        if self._view is not None:
            self._view.__exit__()

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        """Start a workflow."""
        handle = self._run(
            self._connected().start_workflow(
                body["type"],
                *body["input"],
                id=body["id"],
                id_reuse_policy=IdReusePolicy(body["id_reuse_policy"]),
                run_timeout=body["run_timeout_s"],
                request_id=body["request_id"],
            )
        )
        return {"workflow_id": handle.id, "run_id": handle.run_id}

    def result(self, id: str, run_id: str, timeout_s: float) -> dict[str, Any]:
        """Asked of the coordinators: it needs no view."""
        handle = self._connected().get_workflow_handle(id, run_id)
        patience_s = None if timeout_s == float("inf") else max(LEAST_WAIT_S, timeout_s)
        try:
            reply = self._run(handle.closed(patience_s))
        except Unavailable as error:
            raise WaitTimedOut(
                f"nobody says within {timeout_s:g} s that workflow {id!r} is closed"
            ) from error
        return {
            "workflow_id": id,
            "run_id": reply.run_id,
            "status": reply.status,
            "result": plain(reply.result),
            "failure": plain(reply.failure),
            "tags": list(reply.tags),
        }

    def signal(self, id: str, name: str, body: dict[str, Any]) -> None:
        """Send a signal."""
        handle = self._connected().get_workflow_handle(id, body["run_id"])
        self._run(handle.signal(name, *body["input"]))

    def query(self, id: str, name: str, body: dict[str, Any]) -> Any:
        """The answer of a query."""
        handle = self._connected().get_workflow_handle(id, body["run_id"])
        return self._run(handle.query(name, *body["input"]))

    def close(self, id: str, how: str, body: dict[str, Any]) -> None:
        """Cancel or terminate a workflow."""
        handle = self._connected().get_workflow_handle(id, body["run_id"])
        closing = {"cancel": handle.cancel, "terminate": handle.terminate}
        self._run(closing[how](body["reason"]))

    def get(self, *path: str, **params: Any) -> bytes:
        """What the view answers."""
        if self._view is None:
            raise CommandUsage(
                f"lists, descriptions and histories are read at a view, and none is named; name one with "
                f"--view or ${config.VIEW_VARIABLE}, such as {config.ADDRESS}"
            )
        return self._view.get(*path, **params)

    def _connected(self) -> Client:
        if self._client is None:
            Cluster(self._address, self._namespace, self._config).settings()  # says what is wrong with them
            connecting = Client.connect(self._address, namespace=self._namespace, kafka_config=self._config)
            self._client = self._runner.run(connecting)
        return self._client

    def _run(self, asking: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asking)
