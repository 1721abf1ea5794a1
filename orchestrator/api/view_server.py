"""A view as a process: follows a log, serves the HTTP API, and passes commands on to the log.

Readers ask the view's own stores. Commands, and the streams of workers and clients that speak HTTP, go
through the asyncio side of the same log, so a view is a gateway for programs without a Kafka client too.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from orchestrator.api.app import create_app
from orchestrator.api.backend import Backend
from orchestrator.api.guard import LOCAL_HOSTS, NO_PROXY, PublicUrl
from orchestrator.api.reads import ThreadedReader
from orchestrator.api.server import serving
from orchestrator.log.aio import AioLog
from orchestrator.log.port import Log
from orchestrator.telemetry.endpoint import Operations
from orchestrator.telemetry.metrics import new_registry
from orchestrator.view.materializer import Materializer
from orchestrator.view.metering import measure_view
from orchestrator.view.store_reader import StoreReader

_logger = logging.getLogger(__name__)

SILENT_S = 60.0
"""A loop that turns once per second, or some seconds later while stores are opened, or brokers are asked that
do not answer, has not turned for so long: it is stuck.
"""


class View:
    """Follows a log in a thread of its own, from the start on.

    Raises:
        DataFolderInUse: another process follows a log in this folder.
        ConfigError: the folder cannot be used.
    """

    def __init__(
        self, log: Log, folder: Path, *, log_id: str, explain: Callable[[], str] = lambda: ""
    ) -> None:
        """For the arguments see :class:`orchestrator.view.materializer.Materializer`."""
        self.materializer = Materializer(log, folder, log_id=log_id, explain=explain)
        self.reader = StoreReader(
            self.materializer.stores, catch_up=self.materializer.catch_up, served=self.materializer.served
        )
        self.error: BaseException | None = None
        """Why it has ended; None while it works, and if it was closed."""
        self._thread = threading.Thread(target=self._run, name="view", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.materializer.run()
        except BaseException as error:
            self.error = error
            _logger.critical("the view has stopped", exc_info=error)

    @property
    def trouble(self) -> str:
        """Why only a restart helps; "" if none is needed."""
        return f"the view has stopped: {type(self.error).__name__}: {self.error}" if self.error else ""

    @property
    def why_dead(self) -> str:
        """The same, or that it seems to hang; "" if all is well."""
        silent_s = self.materializer.silent_s
        hangs = f"the view's loop has not turned for {silent_s:.0f} s" if silent_s > SILENT_S else ""
        return self.trouble or hangs

    @property
    def why_not_ready(self) -> str:
        """Why it cannot answer now, or only with what is old and without an end; "" if all is well."""
        return self.materializer.trouble or ("" if self.materializer.ready else "history is being read")

    def close(self) -> None:
        """Stop following, close the stores and the log."""
        self.materializer.stop()
        self._thread.join()


@asynccontextmanager
async def serving_view(
    view: View, aio: AioLog, taken: socket.socket, public: PublicUrl = NO_PROXY
) -> AsyncIterator[asyncio.Task[None]]:
    """Serve a view on a bound socket; yields the task that serves, which ends with the block.

    ``public`` is where a proxy serves it. Bound to this machine, it answers to this machine's names and the
    proxy's; else whoever can reach it may ask.
    """
    host = taken.getsockname()[0]
    backend = Backend(aio, ThreadedReader(view.reader), view.materializer)
    registry = new_registry("view")
    measure_view(registry, view.materializer.status)
    operations = Operations(registry, lambda: view.why_dead, lambda: view.why_dead or view.why_not_ready)
    app = create_app(
        backend,
        operations=operations,
        hosts=LOCAL_HOSTS if host in LOCAL_HOSTS else None,
        base_path=public.path,
        origin=public.origin,
    )
    async with serving(app, backend, taken) as http:
        yield http
