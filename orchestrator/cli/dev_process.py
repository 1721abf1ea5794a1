"""The process of ``orchestrator dev``: an engine, a worker, and HTTP for everybody else.

Apart from the command, whose help imports none of this.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

from orchestrator import config
from orchestrator.api import guard
from orchestrator.api.app import create_app
from orchestrator.api.backend import Backend
from orchestrator.api.embedded import Engine
from orchestrator.api.guard import PublicUrl
from orchestrator.api.reads import ThreadedReader
from orchestrator.api.server import bind, serving
from orchestrator.cli.modules import Loaded, load
from orchestrator.cli.process import (
    NOT_OWNED,
    HangWatch,
    settle_collector,
    stop_on_signals,
    stopped_server,
    until_stopped,
)
from orchestrator.coordinator.metering import MetricsMeter
from orchestrator.coordinator.runtime import SystemRuntime
from orchestrator.errors import ConfigError
from orchestrator.telemetry.endpoint import Operations
from orchestrator.telemetry.metrics import CoordinatorMetrics, WorkerMetrics, new_registry
from orchestrator.worker import metering as worker_metering
from orchestrator.worker.worker import Worker

GRACE_S = 1.0
"""How long activities may go on when the process is stopped; they run again after the next start."""


def run(
    modules: list[str],
    data: Path,
    port: int,
    public_url: str,
    *,
    task_queue: str,
    slots: int,
    retention: timedelta,
) -> str:
    """Run until a signal; returns what went wrong, "" if nothing."""
    public = guard.public_url(public_url)
    loaded = load(modules)
    taken = bind(config.HOST, port)
    return asyncio.run(
        _run(loaded, data, taken, public, task_queue=task_queue, slots=slots, retention=retention)
    )


async def _run(
    loaded: Loaded,
    data: Path,
    taken: socket.socket,
    public: PublicUrl,
    *,
    task_queue: str,
    slots: int,
    retention: timedelta,
) -> str:
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        watch = HangWatch()
        stack.callback(watch.stop)
        registry = new_registry("dev")
        engine = await asyncio.to_thread(
            Engine,
            data,
            tuple(loaded.workflows.values()),
            runtime=SystemRuntime(watch.at),
            retention=retention,
            meter=MetricsMeter(CoordinatorMetrics(registry), loaded.workflows),
        )
        stack.push_async_callback(asyncio.to_thread, engine.close)
        try:
            await engine.wait_ready()
        except TimeoutError:
            raise ConfigError(f"the data in {data} could not be restored in time; see the log") from None
        aio = engine.aio()
        stack.push_async_callback(aio.close)
        backend = Backend(aio, ThreadedReader(engine.reader), engine.overview)
        operations = Operations(registry, lambda: _why_dead(engine), lambda: _why_not_ready(engine))
        app = create_app(backend, operations=operations, base_path=public.path, origin=public.origin)
        http = await stack.enter_async_context(serving(app, backend, taken))
        if loaded.activities:
            worker = Worker(
                aio,
                activities=tuple(loaded.activities.values()),
                task_queue=task_queue,
                max_concurrent_activities=slots,
                graceful_shutdown_timeout=GRACE_S,
                meter=worker_metering.MetricsMeter(WorkerMetrics(registry)),
            )
            await stack.enter_async_context(worker)
        settle_collector()
        _say_ready(loaded, taken)
        return await until_stopped(stop, lambda: _trouble(engine, http))


def _trouble(engine: Engine, http: asyncio.Task[None]) -> str:
    return _why_dead(engine) or stopped_server(http)


def _why_dead(engine: Engine) -> str:
    if engine.error is not None:
        return f"the engine has stopped: {type(engine.error).__name__}: {engine.error}"
    return engine.fatal


def _why_not_ready(engine: Engine) -> str:
    return _why_dead(engine) or ("" if engine.ready else NOT_OWNED)


def _say_ready(loaded: Loaded, taken: socket.socket) -> None:
    host, port = taken.getsockname()[:2]
    workflows = ", ".join(sorted(loaded.workflows)) or "none"
    activities = ", ".join(sorted(loaded.activities)) or "none"
    print(f"ready: http://{host}:{port}  workflows: {workflows}  activities: {activities}")
    print(f"the page: http://{host}:{port}/", flush=True)
