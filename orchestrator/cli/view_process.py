"""The process of ``orchestrator view``. Apart from the command, whose help imports none of this."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from pathlib import Path

from orchestrator.api import guard
from orchestrator.api.guard import PublicUrl
from orchestrator.api.server import bind
from orchestrator.api.view_server import View, serving_view
from orchestrator.cli.process import settle_collector, stop_on_signals, stopped_server, until_stopped
from orchestrator.log.kafka.admin import check
from orchestrator.log.kafka.aio import KafkaAioLog
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.settings import KafkaSettings


def run(settings: KafkaSettings, data: Path, host: str, port: int, public_url: str) -> str:
    """Run until a signal; returns what went wrong, "" if nothing."""
    public = guard.public_url(public_url)
    log_id = check(settings, "view").log_id
    taken = bind(host, port)
    return asyncio.run(_run(settings, data / settings.namespace, log_id, taken, public))


async def _run(
    settings: KafkaSettings, folder: Path, log_id: str, taken: socket.socket, public: PublicUrl
) -> str:
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
