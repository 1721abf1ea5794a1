"""``orchestrator coordinator``: one member of the group that decides, on Kafka."""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from orchestrator import config
from orchestrator.cli import exits
from orchestrator.cli.kafka import Cluster
from orchestrator.cli.monitoring import Monitoring
from orchestrator.cli.options import Logging, retention_of
from orchestrator.cli.process import NOT_OWNED, HangWatch, settle_collector
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.coordinator.coordinator import Coordinator
    from orchestrator.log.kafka.log import KafkaLog

SILENT_S = 10.0
"""A loop that turns at least once per second has not turned for so long: it is stuck."""


def coordinator(
    modules: Annotated[list[str], Parameter(name="MODULE", negative=())],
    /,
    *,
    data: Path = Path(config.DATA_FOLDER) / "coordinator",
    retention_days: float = config.RETENTION_DAYS,
    logging: Logging | None = None,
    monitoring: Monitoring | None = None,
    cluster: Cluster | None = None,
) -> int:
    """Run until a signal comes, or something breaks; ends the process.

    Parameters
    ----------
    modules:
        Modules with workflows, such as `app` or `shop.orders`.
    data:
        A folder of this process alone; Kafka has all that is in it, so an empty one is filled again.
    retention_days:
        How long closed runs are kept.
    """
    (logging or Logging()).begin()
    retention = retention_of(retention_days)
    return _run(modules, data, retention, cluster or Cluster(), monitoring or Monitoring())


def _run(
    modules: list[str], data: Path, retention: timedelta, cluster: Cluster, monitoring: Monitoring
) -> int:
    from orchestrator.cli.modules import load
    from orchestrator.coordinator.coordinator import Coordinator
    from orchestrator.coordinator.metering import MetricsMeter
    from orchestrator.coordinator.runtime import SystemRuntime
    from orchestrator.coordinator.watchdog import Watchdog
    from orchestrator.log.folder import FolderLock
    from orchestrator.log.kafka.admin import check
    from orchestrator.log.kafka.log import KafkaLog
    from orchestrator.telemetry.endpoint import Operations
    from orchestrator.telemetry.metrics import CoordinatorMetrics, new_registry
    from orchestrator.telemetry.tracing import find_traces

    loaded = load(modules)
    if not loaded.workflows:
        raise ConfigError(
            f"there is no workflow in {', '.join(modules)}; decorate classes with @workflow.defn"
        )
    settings = cluster.settings()
    namespace = check(settings, "coordinator")
    folder = data / settings.namespace
    lock = FolderLock(folder)
    watch = HangWatch()
    identity = f"{os.getpid()}@{socket.gethostname()}"
    kafka = KafkaLog(settings, member=identity)
    metrics = new_registry("coordinator")
    member = Coordinator(
        kafka,
        folder / "store",
        loaded.workflows,
        SystemRuntime(watch.at),
        log_id=namespace.log_id,
        identity=identity,
        watch=Watchdog(_end),
        retention_ms=round(retention.total_seconds() * 1_000),
        meter=MetricsMeter(CoordinatorMetrics(metrics), loaded.workflows),
        traces=find_traces(),
    )
    operations = Operations(metrics, lambda: _why_dead(member), lambda: _why_not_ready(member, kafka))
    _stop_on_signals(member)
    with ExitStack() as stack:
        stack.callback(lock.release)
        stack.callback(watch.stop)
        watched = stack.enter_context(monitoring.serving(operations))
        where = f"namespace {settings.namespace} on {settings.bootstrap}"
        print(f"ready: {where}  workflows: {', '.join(sorted(loaded.workflows))}{watched}", flush=True)
        settle_collector()
        member.run()
    return exits.OK


def _why_dead(member: Coordinator) -> str:
    silent_s = member.silent_s
    return f"the loop has not turned for {silent_s:.0f} s" if silent_s > SILENT_S else ""


def _why_not_ready(member: Coordinator, kafka: KafkaLog) -> str:
    if trouble := kafka.trouble():
        return trouble
    return "" if member.owns_all else NOT_OWNED


def _stop_on_signals(member: Coordinator) -> None:
    """Leave in order at the first SIGINT or SIGTERM; the second one ends the process as usual."""
    signals = (signal.SIGINT, signal.SIGTERM)

    def on_signal(number: int, frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        member.stop()

    for number in signals:
        signal.signal(number, on_signal)


def _end(workflow_id: str) -> None:
    """The code of a workflow holds this thread for good. What this process owns goes to others."""
    exits.tell(
        f"the code of workflow {workflow_id!r} does not give way and cannot be ended, so this process ends; "
        "others take over, and block the run",
        exits.ERROR,
    )
    sys.stdout.flush()
    os._exit(exits.ERROR)
