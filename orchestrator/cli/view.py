"""``orchestrator view``: shows what happens in one namespace on Kafka, and takes commands, over HTTP."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path

from orchestrator import config
from orchestrator.api import guard
from orchestrator.api.guard import PublicUrl
from orchestrator.api.server import bind
from orchestrator.api.view_server import View, serving_view
from orchestrator.cli.kafka import Cluster
from orchestrator.cli.options import Logging
from orchestrator.cli.process import (
    end_process,
    settle_collector,
    stop_on_signals,
    stopped_server,
    until_stopped,
)
from orchestrator.log.kafka.admin import check
from orchestrator.log.kafka.aio import KafkaAioLog
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.settings import KafkaSettings


def view(
    *,
    data: Path = Path(config.DATA_FOLDER) / "view",
    port: int = config.PORT,
    host: str = config.HOST,
    public_url: str = "",
    logging: Logging | None = None,
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
    public_url:
        Where people reach it through a proxy, such as `https://ops.example.com/orchestrator`.
    """
    (logging or Logging()).begin()
    public = guard.public_url(public_url)
    settings = (cluster or Cluster()).settings()
    log_id = check(settings, "view").log_id
    taken = bind(host, port)
    broken = asyncio.run(_run(settings, data / settings.namespace, log_id, taken, public))
    end_process(broken)


async def _run(
    settings: KafkaSettings, folder: Path, log_id: str, taken: socket.socket, public: PublicUrl
) -> str:
    """Run until a signal; returns what went wrong, "" if nothing."""
    stop = stop_on_signals()
    async with AsyncExitStack() as stack:
        aio = KafkaAioLog(settings)
        stack.push_async_callback(aio.close)
        log = KafkaLog(settings, member=f"view-{os.getpid()}@{socket.gethostname()}")
        view = View(log, folder, log_id=log_id, explain=log.trouble)
        stack.push_async_callback(asyncio.to_thread, view.close)
        http = await stack.enter_async_context(serving_view(view, aio, taken, public))
        settle_collector()
        host, port = taken.getsockname()[:2]
        print(
            f"ready: http://{host}:{port}  namespace: {settings.namespace}  brokers: {settings.bootstrap}",
        )
        print(f"the page: http://{host}:{port}/", flush=True)
        return await until_stopped(stop, lambda: view.trouble or stopped_server(http))
