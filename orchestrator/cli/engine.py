"""The engine as commands see it: what they ask, and how over HTTP; on Kafka: ``kafka_engine``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import quote

import msgspec

from orchestrator import config
from orchestrator.cli import output
from orchestrator.cli.exits import CommandUsage, WaitTimedOut
from orchestrator.errors import Unavailable
from orchestrator.log import wire

T = TypeVar("T")

AGAIN_S = 1.0
"""So often an engine that is away is asked again."""

PAGE_ROWS = 500
"""Runs that one request of a list asks for."""

TIMEOUT_S = 40.0
"""Above the 30 s in which an engine answers, or says that it cannot."""


class Engine(Protocol):
    """What commands ask. Bodies and answers are those of the HTTP API; every method raises what the engine
    says, and ``Unavailable`` if it says nothing.
    """

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        """Start a workflow; its id and run id."""

    def result(self, id: str, run_id: str, timeout_s: float) -> dict[str, Any]:
        """How a run ended, once it is closed; raises ``WaitTimedOut`` if it is not."""

    def signal(self, id: str, name: str, body: dict[str, Any]) -> None:
        """Send a signal."""

    def query(self, id: str, name: str, body: dict[str, Any]) -> Any:
        """The answer of a query."""

    def close(self, id: str, how: str, body: dict[str, Any]) -> None:
        """``cancel`` or ``terminate`` a workflow."""

    def get(self, *path: str, **params: Any) -> bytes:
        """What is read: the body of the answer under this path."""


def patiently(ask: Callable[[], T], until_s: float = float("inf")) -> T:
    """What an engine answers that has answered before: if it is away, it is asked again, and stderr says so.

    Raises:
        Unavailable: it is away, and the monotonic clock says ``until_s``.
    """
    told = False
    while True:
        try:
            return ask()
        except Unavailable as error:
            if (left_s := until_s - time.monotonic()) <= 0.0:
                raise
            if not told:
                output.note(f"waiting: {error}")
            told = True
            time.sleep(min(AGAIN_S, left_s))


def pages(engine: Engine, path: str, filters: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """The rows of a list, page by page, at most ``limit``; 0 is all."""
    limit, page = limit or sys.maxsize, ""
    with output.progress("rows read") as count:
        while limit > 0:
            asked = min(limit, PAGE_ROWS)
            found = msgspec.json.decode(engine.get(path, **filters, limit=asked, page=page))
            yield from found["rows"]
            count(len(found["rows"]))
            limit -= len(found["rows"])
            page = found["next_page"]
            if not page:
                return


class HttpEngine:
    """Requests to the engine, or the view, at an address, one after another.

    ``advice`` says what to do if nothing answers there.
    """

    def __init__(self, address: str, advice: str) -> None:
        self.address = address.rstrip("/")
        self._advice = advice
        if not self.address.startswith(("http://", "https://")):
            raise CommandUsage(
                f"the address {address!r} is not understood; expected one like {config.ADDRESS}"
            )
        import httpx

        self._http = httpx.Client(base_url=self.address + wire.PREFIX, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def start(self, body: dict[str, Any]) -> dict[str, Any]:
        """Start a workflow."""
        found: dict[str, Any] = self._post("workflows", body=body)
        return found

    def result(self, id: str, run_id: str, timeout_s: float) -> dict[str, Any]:
        """Long polls, until the run is closed; an engine that has answered once is waited for, too."""
        deadline_s = time.monotonic() + timeout_s

        def ask(run_id: str, longest_s: float) -> dict[str, Any]:
            wait_s = max(0.0, min(longest_s, deadline_s - time.monotonic()))
            answer = self.get("workflows", id, "result", run_id=run_id, wait_s=wait_s)
            found: dict[str, Any] = msgspec.json.decode(answer)
            return found

        found = ask(run_id, 0.0)
        run_id = found["run_id"]  # of this run, even if the id is started anew meanwhile
        while found["status"] in ("Running", "Blocked"):
            if time.monotonic() >= deadline_s:
                raise WaitTimedOut(f"workflow {id!r} is still {found['status']} after {timeout_s:g} s")
            try:
                found = patiently(lambda: ask(run_id, wire.MAX_WAIT_S), deadline_s)
            except Unavailable as error:
                raise WaitTimedOut(f"after {timeout_s:g} s, {error}") from error
        return found

    def signal(self, id: str, name: str, body: dict[str, Any]) -> None:
        """Send a signal."""
        self._post("workflows", id, "signals", name, body=body)

    def query(self, id: str, name: str, body: dict[str, Any]) -> Any:
        """The answer of a query."""
        return self._post("workflows", id, "queries", name, body=body)["result"]

    def close(self, id: str, how: str, body: dict[str, Any]) -> None:
        """Cancel or terminate a workflow."""
        self._post("workflows", id, how, body=body)

    def get(self, *path: str, **params: Any) -> bytes:
        """The body of an answer. What is None or "" was not said, and is as the engine has it; 0 was."""
        said = {name: value for name, value in params.items() if value not in (None, "")}
        return self._ask("GET", path, params=said)

    def _post(self, *path: str, body: dict[str, Any]) -> Any:
        content = self._ask("POST", path, content=msgspec.json.encode(body))
        return msgspec.json.decode(content) if content else None

    def _ask(self, method: str, path: tuple[str, ...], **request: Any) -> bytes:
        from httpx import HTTPError, InvalidURL

        try:
            response = self._http.request(
                method, "/" + "/".join(quote(part, safe="") for part in path), **request
            )
        except (HTTPError, InvalidURL) as error:
            raise Unavailable(f"no engine answers at {self.address} ({error}); {self._advice}") from error
        if response.status_code < 400:
            return response.content
        try:
            problem = msgspec.json.decode(response.content, type=wire.Problem)
        except msgspec.MsgspecError:
            raise Unavailable(
                f"{self.address} answered {response.status_code}, not as an engine does; check the address"
            ) from None
        raise wire.error_of(problem, response.status_code)
