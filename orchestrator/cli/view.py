"""``orchestrator view``: shows what happens in one namespace on Kafka, and takes commands, over HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal

from orchestrator import config
from orchestrator.api.server import bind
from orchestrator.api.view_server import View, serving_view
from orchestrator.cli import exits
from orchestrator.cli.kafka import Cluster
from orchestrator.cli.process import settle_collector, stop_on_signals
from orchestrator.log.kafka.admin import check
from orchestrator.log.kafka.aio import KafkaAioLog
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.telemetry.logs import log_to_stderr

LOOK_S = 0.2
"""How often it is looked whether all is well."""


def view(
    *,
    data: Path = Path(config.DATA_FOLDER) / "view",
    port: int = config.PORT,
    host: str = config.HOST,
    log_level: Literal["debug", "info", "warning", "error"] = "info",
    cluster: Cluster | None = None,
) -> int:
    """Run until a signal comes, or something breaks; ends the process.

    Parameters
    ----------
    data:
        A folder of this process alone; Kafka has all that is in it, so an empty one is filled again.
    port:
        Where HTTP is served; 0 takes a free one.
    host:
        The address that is listened on. Whoever reaches another one than this machine's own may do anything:
        put a proxy before it that asks who they are.
    log_level:
        What is logged on stderr.
    """
    log_to_stderr(log_level)
    settings = (cluster or Cluster()).settings()
    log_id = check(settings, "view").log_id
    taken = bind(host, port)
    broken = asyncio.run(_run(settings, data / settings.namespace, log_id, taken))
    code = exits.tell(broken, exits.ERROR) if broken else exits.OK
    # Threads that read for somebody who is gone would keep the process alive; the log has all that matters.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


async def _run(settings: KafkaSettings, folder: Path, log_id: str, taken: socket.socket) -> str:
    """Run until a signal; returns what went wrong, "" if nothing."""
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        aio = KafkaAioLog(settings)
        stack.push_async_callback(aio.close)
        log = KafkaLog(settings, member=f"view-{os.getpid()}@{socket.gethostname()}")
        view = View(log, folder, log_id=log_id, explain=log.trouble)
        stack.push_async_callback(asyncio.to_thread, view.close)
        http = await stack.enter_async_context(serving_view(view, aio, taken))
        settle_collector()
        host, port = taken.getsockname()[:2]
        print(
            f"ready: http://{host}:{port}  namespace: {settings.namespace}  brokers: {settings.bootstrap}",
            flush=True,
        )
        while not stop.is_set():
            if view.error is not None:
                return f"the view has stopped: {type(view.error).__name__}: {view.error}"
            if http.done():
                return f"the HTTP server has stopped: {http.exception()!r}"
            try:
                async with asyncio.timeout(LOOK_S):
                    await stop.wait()
            except TimeoutError:
                continue
    return ""
