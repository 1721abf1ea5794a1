"""The options by which a role without an HTTP API is watched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from orchestrator import config

if TYPE_CHECKING:
    from orchestrator.telemetry.endpoint import Operations


@Parameter(name="*")
@dataclass(frozen=True)
class Monitoring:
    """Where metrics and health are asked for.

    Parameters
    ----------
    metrics_port:
        Where /metrics, /live and /ready are served; 0 takes a free one, by default nothing is served.
    metrics_host:
        The address that is listened on. They tell names of workflows, queues and activities.
    """

    metrics_port: Annotated[int | None, Parameter()] = None
    metrics_host: str = config.HOST

    @property
    def wanted(self) -> bool:
        """Whether anybody will ask."""
        return self.metrics_port is not None

    @contextmanager
    def serving(self, operations: Operations) -> Iterator[str]:
        """Serve while the block lasts, if anybody will ask; yields words for the role's first line.

        Raises:
            PortInUse, ConfigError: it cannot be listened there.
        """
        if self.metrics_port is None:
            yield ""
            return
        from orchestrator.telemetry.endpoint import serving

        with serving(operations, self.metrics_host, self.metrics_port) as address:
            yield f"  metrics: {address}/metrics"
