"""Templates become answers.

Everything that a template shows is escaped, and a name that it does not have is an error. A page is one
template with a block ``main``; what is put into a page that is already there is one of its blocks. All links
go through ``link``, so the page works below any path.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from time import time_ns
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from orchestrator.api.pages.static import ASSETS
from orchestrator.api.responses import INVALID
from orchestrator.codec import people
from orchestrator.codec.payloads import BINARY_NULL, JSON_PLAIN
from orchestrator.codec.query import quoted
from orchestrator.errors import OrchestratorError
from orchestrator.log.wire import problem_of
from orchestrator.protocol.values import Failure, Payload

TEMPLATES = Path(__file__).parent / "templates"

CSP = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
"""Nothing comes from elsewhere, and nothing that stands in a page runs: only files of ours do."""

HEADERS = {
    "Content-Security-Policy": CSP,
    "X-Content-Type-Options": "nosniff",
    # Ids of workflows stay here; "no-referrer" would hide from us where our own forms come from.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "HX-Request",
}

NAVIGATION = (
    ("/", "Overview"),
    ("/workflows", "Workflows"),
    ("/failures", "Failures"),
    ("/stuck", "Stuck"),
    ("/queues", "Queues"),
    ("/cluster", "Cluster"),
)
"""The pages that all pages link to."""

MAX_ROOTS = 8
"""Environments kept: there is one for each path below which the page is served, so mostly one."""

RETRY_S = 3
"""When a page that cannot be shown yet asks again."""


def render(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """A page; only its block ``main`` if htmx asks, which puts it into the page that is there."""
    found = environment(_root(request)).get_template(template)
    context |= {"here": here(request)}
    if request.headers.get("HX-Request") == "true" and "HX-History-Restore-Request" not in request.headers:
        text = "".join(found.blocks["main"](found.new_context(context)))
    else:
        text = found.render(context)
    return HTMLResponse(text, status, HEADERS)


def fragment(request: Request, template: str, block: str, **context: Any) -> str:
    """One block of a page's template: what an update puts into that page.

    A template's own imports and assignments are not there, unless they stand in the block.
    """
    found = environment(_root(request)).get_template(template)
    return "".join(found.blocks[block](found.new_context(context | {"here": here(request)})))


def link_of(request: Request, path: str, *names: str, **query: object) -> str:
    """An address of ours: a path from the page's root, names below it, a query without "" and None.

    Names are escaped as a whole: a workflow id may hold slashes.
    """
    return _link(_root(request), path, *names, **query)


def here(request: Request) -> str:
    """The path of a request below the page's root, whether or not a proxy has left the root in it."""
    root, path = _root(request), str(request.scope["path"])
    return path.removeprefix(root) or "/" if f"{path}/".startswith(f"{root}/") else path


def page_router() -> APIRouter:
    """A router whose errors are pages."""
    return APIRouter(route_class=_PageRoute, include_in_schema=False)


class _PageRoute(APIRoute):
    """A route that tells of its errors in a page, and answers to HEAD where it does to GET."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        if self.methods is not None and "GET" in self.methods:
            self.methods.add("HEAD")

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except OrchestratorError as error:
                status, problem = problem_of(error)
                return error_page(request, status, problem.message)
            except RequestValidationError as error:
                found = "; ".join(
                    f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
                )
                return error_page(request, INVALID, found)

        return handled


def error_page(request: Request, status: int, message: str) -> HTMLResponse:
    """What went wrong, in words. One that may be better in a moment asks again by itself."""
    page = render(request, "error.html", status=status, code=status, message=message)
    if status == 503 and request.method == "GET":
        page.headers["Refresh"] = page.headers["Retry-After"] = str(RETRY_S)
    return page


# ------------------------------------------------------------------------------------- the environment


@lru_cache(MAX_ROOTS)
def environment(root: str) -> Environment:
    """The templates for a page below ``root``, "" or a path such as "/orchestrator"."""
    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= FILTERS
    found.globals |= {
        "link": lambda path, *names, **query: _link(root, path, *names, **query),
        "asset": lambda name: root + ASSETS[name].path,
        "navigation": NAVIGATION,
        "now_ms": now_ms,
    }
    found.globals["ui"] = found.get_template("ui.html").module
    return found


def now_ms() -> int:
    """The clock that "5 min ago" goes by."""
    return time_ns() // 1_000_000


def payload_text(payload: Payload) -> str:
    """A value as people read it: texts as they are, other JSON indented, bytes as :func:`bytes_text`."""
    if payload.encoding == BINARY_NULL:
        return "null"
    if payload.encoding == JSON_PLAIN:
        # Else a codec wrote it that is not known here.
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):
            value = msgspec.json.decode(payload.data)
            return value if isinstance(value, str) else msgspec.json.format(payload.data, indent=2).decode()
    return bytes_text(payload.data)


def causes(failure: Failure | None) -> Iterator[Failure]:
    """A failure and what caused it, down to the root."""
    while failure is not None:
        yield failure
        failure = failure.cause


def attempt_text(attempt: int, maximum: int = 0) -> str:
    """Which attempt this is, of how many."""
    return f"{attempt}/{maximum or '∞'}" if attempt else ""


def bytes_text(data: bytes) -> str:
    """Bytes as people read them: as text if they are, else as hexadecimal digits."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    return text if all(sign.isprintable() or sign in "\n\t" for sign in text) else data.hex(" ", 2)


def number_text(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}"


FILTERS: Mapping[str, Callable[..., Any]] = {
    "utc": people.time_of,
    "ago": lambda time_ms: people.ago(time_ms, now_ms()),
    "span": people.span_of,
    "ranges": people.ranges,
    "number": number_text,
    "quoted": quoted,
    "payload": payload_text,
    "bytes": bytes_text,
    "causes": causes,
    "attempt": attempt_text,
}
"""What templates make of values. Times and spans are in milliseconds."""


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", "")).rstrip("/")


def _link(root: str, path: str, *names: str, **query: object) -> str:
    below = "".join(f"/{quote(name, safe='')}" for name in names)
    given = {name: value for name, value in query.items() if value not in ("", None)}
    return f"{root}{path}{below}{'?' if given else ''}{urlencode(given)}"
