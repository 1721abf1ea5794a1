"""The engine as commands see it: one request after another, over HTTP."""

from __future__ import annotations

import os
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from orchestrator import config
from orchestrator.errors import ConfigError, Unavailable
from orchestrator.log import wire

TIMEOUT_S = 40.0
"""Above the 30 s in which an engine answers, or says that it cannot."""


class Engine:
    """Requests to the engine at an address; "" is ``$ORCHESTRATOR_ADDRESS``, or else this machine's."""

    def __init__(self, address: str = "") -> None:
        self.address = (address or os.environ.get(config.ADDRESS_VARIABLE) or config.ADDRESS).rstrip("/")
        if not self.address.startswith(("http://", "https://")):
            raise ConfigError(
                f"the address {self.address!r} is not understood; expected one like {config.ADDRESS}"
            )
        self._http = httpx.Client(base_url=self.address + wire.PREFIX, timeout=TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, *path: str, **params: Any) -> bytes:
        """The body of an answer. Raises what the engine says."""
        return self._ask("GET", path, params={name: value for name, value in params.items() if value})

    def post(self, *path: str, body: dict[str, Any]) -> Any:
        """The decoded answer, None if there is none."""
        content = self._ask("POST", path, content=msgspec.json.encode(body))
        return msgspec.json.decode(content) if content else None

    def _ask(self, method: str, path: tuple[str, ...], **request: Any) -> bytes:
        try:
            response = self._http.request(
                method, "/" + "/".join(quote(part, safe="") for part in path), **request
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unavailable(
                f"no engine answers at {self.address} ({error}); start one with 'orchestrator dev', or name "
                f"another with --address or ${config.ADDRESS_VARIABLE}"
            ) from error
        if response.status_code < 400:
            return response.content
        try:
            problem = msgspec.json.decode(response.content, type=wire.Problem)
        except msgspec.MsgspecError:
            raise Unavailable(
                f"{self.address} answered {response.status_code}, not as an engine does; check the address"
            ) from None
        raise wire.error_of(problem, response.status_code)
