"""``orchestrator coordinator``: one member of the group that decides, on Kafka."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

from cyclopts import Parameter

from orchestrator import config
from orchestrator.cli import exits
from orchestrator.cli.kafka import Cluster
from orchestrator.cli.modules import load
from orchestrator.cli.options import retention_of
from orchestrator.cli.process import HangWatch, settle_collector
from orchestrator.coordinator.coordinator import Coordinator
from orchestrator.coordinator.runtime import SystemRuntime
from orchestrator.coordinator.watchdog import Watchdog
from orchestrator.errors import ConfigError
from orchestrator.log.folder import FolderLock
from orchestrator.log.kafka.admin import check
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.telemetry.logs import log_to_stderr


def coordinator(
    modules: Annotated[list[str], Parameter(name="MODULE", negative=())],
    /,
    *,
    data: Path = Path(config.DATA_FOLDER) / "coordinator",
    retention_days: float = config.RETENTION_DAYS,
    log_level: Literal["debug", "info", "warning", "error"] = "info",
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
    log_level:
        What is logged on stderr.
    """
    log_to_stderr(log_level)
    retention = retention_of(retention_days)
    loaded = load(modules)
    if not loaded.workflows:
        raise ConfigError(
            f"there is no workflow in {', '.join(modules)}; decorate classes with @workflow.defn"
        )
    settings = (cluster or Cluster()).settings()
    namespace = check(settings, "coordinator")
    folder = data / settings.namespace
    lock = FolderLock(folder)
    watch = HangWatch()
    identity = f"{os.getpid()}@{socket.gethostname()}"
    member = Coordinator(
        KafkaLog(settings, member=identity),
        folder / "store",
        loaded.workflows,
        SystemRuntime(watch.at),
        log_id=namespace.log_id,
        identity=identity,
        watch=Watchdog(_end),
        retention_ms=round(retention.total_seconds() * 1_000),
    )

    _stop_on_signals(member)
    workflows = ", ".join(sorted(loaded.workflows))
    print(
        f"ready: namespace {settings.namespace} on {settings.bootstrap}  workflows: {workflows}", flush=True
    )
    settle_collector()
    try:
        member.run()
    finally:
        watch.stop()
        lock.release()
    return exits.OK


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
