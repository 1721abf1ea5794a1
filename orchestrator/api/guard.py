"""What stands before all routes: whose requests are served, and how paths are read."""

from __future__ import annotations

from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import msgspec
from starlette.convertors import Convertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.errors import ConfigError
from orchestrator.log.wire import Problem

LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
"""The names of this machine that no web page can take over."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


_BEHIND_A_PROXY = "; if a proxy serves it there, start it with --public-url"


class PublicUrl(NamedTuple):
    """Where people reach this through a proxy, ``https://ops.example.com/orchestrator`` say, in two parts.

    Attributes:
        origin: scheme, host and port, as browsers write them; "" if there is no proxy.
        path: what all paths begin with there, without a slash at its end; may be "".
    """

    origin: str = ""
    path: str = ""


NO_PROXY = PublicUrl()


def public_url(text: str) -> PublicUrl:
    """The parts of an address; "" has none.

    Raises:
        ConfigError: it is no such address.
    """
    if not text:
        return NO_PROXY
    try:
        url = urlsplit(text)
        known = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:
        known = False
    if not known or url.query or url.fragment or "@" in url.netloc:
        raise ConfigError(
            f"{text!r} is no address of a page; that is https://HOST or https://HOST/PATH, without a query"
        )
    return PublicUrl(f"{url.scheme}://{url.netloc.lower()}", url.path.rstrip("/"))


class Guard:
    """ASGI middleware.

    - A ``Host`` that is not in ``hosts`` is refused, so that no web page reaches a local engine by
      giving its own name this machine's address. ``hosts`` None: behind a proxy, which checks it.
    - A request that changes something is refused if its ``Origin`` is another site than its ``Host``, and
      not ``origin`` either: a proxy may give this machine as the host of what its own pages send.
    - Paths are matched undecoded, and names decoded afterwards: a workflow id may hold slashes.
    - Below a ``base_path`` such as "/orchestrator", paths are taken with and without it.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str] | None = LOCAL_HOSTS,
        base_path: str = "",
        origin: str = "",
    ) -> None:
        self._app = app
        self._hosts = hosts if hosts is None or not origin else hosts | {_name(urlsplit(origin).netloc)}
        self._origin = origin
        self._base_path = base_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            await _refuse(send, refusal)
        else:
            await self._app({**scope, **self._place(scope)}, receive, send)

    def _place(self, scope: Scope) -> dict[str, str]:
        path = scope["raw_path"].decode("latin-1")
        root = self._base_path or scope.get("root_path", "")
        return {"root_path": root, "path": f"{path}/" if path == root else path}

    def _refusal(self, method: str, headers: dict[bytes, str]) -> Problem | None:
        host = headers.get(b"host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            known = ", ".join(sorted(self._hosts))
            return Problem(
                error="foreign-host",
                message=f"the request is for host {host!r}; this engine is {known}{_BEHIND_A_PROXY}",
            )
        origin = headers.get(b"origin", "").lower()
        ours = origin in ("", self._origin) or urlsplit(origin).netloc == host.lower()
        if method not in _SAFE_METHODS and not ours:
            return Problem(
                error="foreign-origin",
                message=f"a page of {origin} may not change anything on {host}{_BEHIND_A_PROXY}",
            )
        return None


async def _refuse(send: Send, problem: Problem) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": msgspec.json.encode(problem)})


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


class _Escaped(Convertor[Any]):
    """A part of a path, decoded after it was matched."""

    regex = "[^/]+"

    def convert(self, value: str) -> str:
        return unquote(value)

    def to_string(self, value: Any) -> str:
        return str(value)


register_url_convertor("name", _Escaped())
