"""``orchestrator worker``: runs activities, for the workflows of one namespace on Kafka, or of one engine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from orchestrator import config
from orchestrator.cli.kafka import Cluster
from orchestrator.cli.monitoring import Monitoring
from orchestrator.cli.options import Logging, Slots
from orchestrator.cli.process import Pulse, end_process, settle_collector, stop_on_signals
from orchestrator.errors import ConfigError

if TYPE_CHECKING:
    from orchestrator.cli.modules import Loaded

NOT_KNOWN = "its beats do not come back from the log, so it is sent nothing"


def worker(
    modules: Annotated[list[str], Parameter(name="MODULE", negative=())],
    /,
    *,
    task_queue: Annotated[list[str] | None, Parameter(negative=())] = None,
    slots: Slots = config.SLOTS,
    grace: float = 10.0,
    logging: Logging | None = None,
    monitoring: Monitoring | None = None,
    cluster: Cluster | None = None,
) -> int:
    """Run until a signal comes; ends the process.

    Parameters
    ----------
    modules:
        Modules with activities, such as `app` or `shop.activities`.
    task_queue:
        The queue whose activities are run here; repeat it for each.
    slots:
        How many activities run at a time.
    grace:
        Seconds that running activities have when the process is stopped; then they run elsewhere again.
    """
    from orchestrator.cli.modules import load

    (logging or Logging()).begin()
    loaded = load(modules, runs_workflows=False)
    if not loaded.activities:
        raise ConfigError(
            f"there is no activity in {', '.join(modules)}; decorate functions with @activity.defn"
        )
    queues = tuple(task_queue or [config.TASK_QUEUE])
    run = _run(
        loaded, cluster or Cluster(), monitoring or Monitoring(), queues=queues, slots=slots, grace_s=grace
    )
    asyncio.run(run)
    end_process()


async def _run(
    loaded: Loaded,
    cluster: Cluster,
    monitoring: Monitoring,
    *,
    queues: tuple[str, ...],
    slots: int,
    grace_s: float,
) -> None:
    from orchestrator.telemetry.endpoint import Operations
    from orchestrator.telemetry.metrics import WorkerMetrics, new_registry
    from orchestrator.worker.metering import MetricsMeter
    from orchestrator.worker.worker import Worker

    stop, pulse = stop_on_signals(), Pulse()
    registry = new_registry("worker")
    log = cluster.connect()
    try:
        worker = Worker(
            log,
            activities=tuple(loaded.activities.values()),
            task_queue=queues,
            max_concurrent_activities=slots,
            graceful_shutdown_timeout=grace_s,
            meter=MetricsMeter(WorkerMetrics(registry)),
        )
        operations = Operations(registry, lambda: pulse.why_dead, lambda: "" if worker.ready else NOT_KNOWN)
        with monitoring.serving(operations) as watched:
            async with worker:
                names = ", ".join(sorted(loaded.activities))
                print(
                    f"ready: {cluster.address}  queues: {', '.join(queues)}  activities: {names}{watched}",
                    flush=True,
                )
                settle_collector()
                await stop.wait()
    finally:
        pulse.stop()
        await log.close()
