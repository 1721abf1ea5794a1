"""Between HTTP and structs: bodies in, answers out, errors, and how they are shown in OpenAPI."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from orchestrator.api.streams import StreamGone
from orchestrator.errors import OrchestratorError, PayloadError, UsageError
from orchestrator.log.wire import BOOKMARK_HEADER, MAX_BODY_BYTES, STREAM_GONE, Problem, problem_of

T = TypeVar("T")

JSON = "application/json"

Bookmark = Annotated[
    str,
    Query(description=f"`{BOOKMARK_HEADER}` of an answer: waits until what that answer told of is shown"),
]

INVALID = 422
"""The request is understood, and wrong: see the message."""


def answer(body: Any, status: int = 200) -> Response:
    """An answer with a JSON body."""
    return Response(msgspec.json.encode(body), status, media_type=JSON)


def marked(response: Response, bookmark: str) -> Response:
    """The answer to a command, with the bookmark of what it did."""
    if bookmark:
        response.headers[BOOKMARK_HEADER] = bookmark
    return response


async def body_of(request: Request, kind: Any) -> Any:
    """The request's body as a struct; an empty body is an empty object.

    Raises:
        PayloadError: it has more than ``MAX_BODY_BYTES``.
        UsageError: it is not what was expected.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise PayloadError(
                f"the request's body has more than {MAX_BODY_BYTES} bytes; keep large data elsewhere and "
                "send its key"
            )
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.MsgspecError as error:
        raise UsageError(f"the request's body is not as expected: {error}") from error


def install_error_handlers(app: FastAPI) -> None:
    """Every error leaves as a :class:`Problem`."""

    @app.exception_handler(OrchestratorError)
    async def known(request: Request, error: OrchestratorError) -> Response:
        status, problem = problem_of(error)
        return answer(problem, status)

    @app.exception_handler(StreamGone)
    async def stream_gone(request: Request, error: StreamGone) -> Response:
        return answer(Problem(error=STREAM_GONE, message=str(error)), 404)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return answer(Problem(error="invalid-request", message=found), INVALID)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path}: {error.detail}; see /openapi.json for what there is"
        return answer(Problem(error="no-such-path", message=message), error.status_code)

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> Response:
        return answer(Problem(error="bug", message=f"{type(error).__name__}: {error}"), 500)


# --- OpenAPI ---


def takes(kind: Any, example: Any, *, required: bool = True) -> dict[str, Any]:
    """``openapi_extra`` of a route that takes such a body."""
    content = {JSON: {"schema": _ref(kind), "example": _plain(example)}}
    return {"requestBody": {"required": required, "content": content}}


def gives(kind: Any, description: str, example: Any = None, *, status: int = 200) -> dict[int | str, Any]:
    """``responses`` of a route that answers so, or with a :class:`Problem`."""
    content: dict[str, Any] = {} if kind is None else {JSON: {"schema": _ref(kind)}}
    if example is not None:
        content[JSON]["example"] = _plain(example)
    problem = {"description": "What is wrong.", "content": {JSON: {"schema": _ref(Problem)}}}
    return {status: {"description": description, "content": content}, "default": problem}


_kinds: list[Any] = []


def _ref(kind: Any) -> dict[str, Any]:
    """A reference to the schema of a type; :func:`schemas` has what it refers to."""
    if kind not in _kinds:
        _kinds.append(kind)
    (schema,), _ = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    return schema


def schemas() -> dict[str, Any]:
    """The schemas of all types that routes take and give."""
    _, components = msgspec.json.schema_components(_kinds, ref_template="#/components/schemas/{name}")
    return dict(components)


def _plain(example: Any) -> Any:
    return json.loads(msgspec.json.encode(example))
