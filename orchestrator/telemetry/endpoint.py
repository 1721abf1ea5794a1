"""Three addresses for those who operate a role: its metrics, whether it lives, and whether it is ready.

``/live`` says whether the process should be started again, ``/ready`` whether it does its work now; both
answer 200, or 503 with the reason. Kubernetes and load balancers ask them by these names.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from orchestrator.errors import ConfigError, PortInUse
from orchestrator.telemetry.metrics import exposition

TEXT = "text/plain; charset=utf-8"

PATHS = ("/metrics", "/live", "/ready")


class Answer(NamedTuple):
    """What is answered: a status, a body and its content type."""

    status: HTTPStatus
    body: bytes
    content_type: str = TEXT


class Operations(NamedTuple):
    """What a role lets its operators know.

    Attributes:
        registry: its metrics.
        live: what is so wrong that only a restart helps; "" if nothing is.
        ready: why it cannot do its work now; "" if it can.
    """

    registry: CollectorRegistry
    live: Callable[[], str]
    ready: Callable[[], str]

    def answer(self, path: str, accept: str = "") -> Answer:
        """The answer to a GET of a path; 404 if there is nothing of that name."""
        if path == "/metrics":
            return Answer(HTTPStatus.OK, *exposition(self.registry, accept))
        look = {"/live": self.live, "/ready": self.ready}.get(path)
        if look is None:
            return Answer(HTTPStatus.NOT_FOUND, b"there are /metrics, /live and /ready\n")
        if trouble := look():
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{trouble}\n".encode())
        return Answer(HTTPStatus.OK, b"ok\n")


class _Handler(BaseHTTPRequestHandler):
    """Answers for the :class:`Operations` of its server."""

    timeout = 10.0
    server: _Server

    def do_GET(self) -> None:  # the base class finds it by this name
        """Answer one request; the connection ends with it."""
        accept = self.headers.get("Accept", "")
        answer = self.server.operations.answer(self.path.partition("?")[0], accept)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: each scrape would be a line."""


class _Server(ThreadingHTTPServer):
    """A server of its own thread, so that it answers while the role is busy, and says so if it is stuck."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], operations: Operations) -> None:
        self.operations = operations
        super().__init__(address, _Handler)


@contextmanager
def serving(operations: Operations, host: str, port: int) -> Iterator[str]:
    """Serve on a port for as long as the block lasts; yields the address. Port 0 takes a free one.

    Raises:
        PortInUse: another process listens there.
        ConfigError: the host or port cannot be used.
    """
    try:
        server = _Server((host, port), operations)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"port {port} on {host} is in use by another process; stop it, or choose another "
                "--metrics-port"
            ) from error
        raise ConfigError(f"cannot listen on {host}:{port}: {error}") from error
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
