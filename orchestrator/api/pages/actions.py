"""What somebody does to a run from its page: signal, query, cancel, terminate; and where its code waits.

Each is a form on a page of its own, which the run's page shows in a dialog where scripts run. A form has a
token: sent twice, it has one effect. What was done is shown, for the page waits until the read side has it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from orchestrator.api.backend import Backend
from orchestrator.api.pages.rendering import link_of, page_router, render
from orchestrator.client.handle import WorkflowHandle
from orchestrator.errors import OrchestratorError, UsageError, WorkflowNotFound
from orchestrator.log.wire import MAX_BODY_BYTES, problem_of
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import RunDescription
from orchestrator.workflow.stack import STACK_QUERY

IDENTITY = "page"
"""Who asked, in histories: the page does not know more."""

TIMEOUT_S = 15.0
"""How long an answer is waited for; then the form is shown again, and may be sent again."""

STACK_TIMEOUT_S = 5.0
"""How long the page waits for the code to say where it waits: it answers in milliseconds, or not at all."""

MAX_FIELDS = 20
"""Of a form; ours have five."""

Form = Mapping[str, str]


class Action(NamedTuple):
    """A form. ``about`` says what it does; ``danger``: it ends something."""

    name: str
    title: str
    about: str
    needs_reason: bool = False
    asks: bool = False
    danger: bool = False


ACTIONS: Mapping[str, Action] = {
    action.name: action
    for action in (
        Action("signal", "Signal", "Tells the workflow something. Its handler of that name is called."),
        Action("query", "Query", "Asks the workflow something, and changes nothing.", asks=True),
        Action(
            "cancel",
            "Cancel",
            "Asks the workflow to cancel itself. Its code is told, and may clean up first.",
            needs_reason=True,
            danger=True,
        ),
        Action(
            "terminate",
            "Terminate",
            "Closes the run at once. Its code hears nothing of it and cannot clean up.",
            needs_reason=True,
            danger=True,
        ),
    )
}

KEPT = ("show", "order")
"""What the address of a form takes along, so that the list of events is the same afterwards. Its place is
not: what was done stands at an end of the list."""


class Done(NamedTuple):
    """What a page says after an action, and whether that can be said of a run."""

    words: str
    agrees: Callable[[RunDescription], bool] = lambda run: True


DONE: Mapping[str, Done] = {
    "signal": Done("The signal was accepted."),
    "cancel": Done("Cancellation was requested.", lambda run: run.cancel_requested),
    "terminate": Done("The run was terminated.", lambda run: run.row.status is WorkflowStatus.TERMINATED),
}
"""The address has the key, never the words."""


def done_words(name: str, run: RunDescription) -> str:
    """What is said of an action that an address tells of; "" if it does not look as if that had been done."""
    done = DONE.get(name)
    return done.words if done is not None and done.agrees(run) else ""


def action_pages(backend: Backend) -> APIRouter:
    """The forms, and what becomes of them."""
    router = page_router()
    client = backend.client.known_as(IDENTITY)

    @router.get("/workflows/{workflow_id:name}/{run_id:name}/do/{name}")
    async def form(request: Request, workflow_id: str, run_id: str, name: str) -> Response:
        action = _action(name)
        await backend.reader.describe(workflow_id, run_id)
        return _shown(request, workflow_id, run_id, action, {"token": _token()})

    @router.post("/workflows/{workflow_id:name}/{run_id:name}/do/{name}")
    async def do(request: Request, workflow_id: str, run_id: str, name: str) -> Response:
        action = _action(name)
        given = {"token": _token(), **await form_of(request)}
        handle = client.get_workflow_handle(workflow_id, run_id)
        try:
            result = await _DO[name](handle, given)
        except OrchestratorError as error:
            status, problem = problem_of(error)
            return _shown(request, workflow_id, run_id, action, given, status=status, error=problem.message)
        if action.asks:
            answer = json.dumps(result, indent=2, ensure_ascii=False, default=str)
            return _shown(request, workflow_id, run_id, action, given, answer=answer)
        told = {"done": name, "bookmark": handle.bookmark}
        page = link_of(request, "/workflows", workflow_id, run_id, **_kept(request), **told)
        return RedirectResponse(page, 303)

    @router.get("/workflows/{workflow_id:name}/{run_id:name}/stack")
    async def stack(request: Request, workflow_id: str, run_id: str) -> Response:
        handle = client.get_workflow_handle(workflow_id, run_id)
        found, error, status = "", "", 200
        try:
            found = str(await handle.query(STACK_QUERY, timeout=STACK_TIMEOUT_S))
        except WorkflowNotFound:
            raise
        except OrchestratorError as refused:  # it is closed, blocked, or nobody runs it now
            status, problem = problem_of(refused)
            error = problem.message
        context = {"workflow_id": workflow_id, "run_id": run_id, "found": found, "error": error}
        return render(request, "stack.html", status=status, **context)

    return router


def _token() -> str:
    return uuid.uuid4().hex


def _action(name: str) -> Action:
    if name not in ACTIONS:
        raise WorkflowNotFound(f"there is no action {name!r}; there are {', '.join(ACTIONS)}")
    return ACTIONS[name]


def _kept(request: Request) -> dict[str, str]:
    return {name: request.query_params[name] for name in KEPT if name in request.query_params}


def _shown(
    request: Request,
    workflow_id: str,
    run_id: str,
    action: Action,
    given: Form,
    *,
    status: int = 200,
    **found: Any,
) -> Response:
    return render(
        request,
        "action.html",
        status=status,
        workflow_id=workflow_id,
        run_id=run_id,
        action=action,
        given=given,
        kept=_kept(request),
        in_dialog=request.headers.get("HX-Request") == "true",
        **({"error": "", "answer": None} | found),
    )


# ------------------------------------------------------------------------------------------- doing


async def _signal(handle: WorkflowHandle[Any], given: Form) -> None:
    await handle.signal(
        _required(given, "name", "the name of the signal"),
        *arguments_of(given.get("arguments", "")),
        request_id=request_id(given),
        timeout=TIMEOUT_S,
    )


async def _query(handle: WorkflowHandle[Any], given: Form) -> Any:
    name = _required(given, "name", "the name of the query")
    return await handle.query(name, *arguments_of(given.get("arguments", "")), timeout=TIMEOUT_S)


async def _cancel(handle: WorkflowHandle[Any], given: Form) -> None:
    reason = _required(given, "reason", "a reason")
    await handle.cancel(reason, request_id=request_id(given), timeout=TIMEOUT_S)


async def _terminate(handle: WorkflowHandle[Any], given: Form) -> None:
    reason = _required(given, "reason", "a reason")
    await handle.terminate(reason, request_id=request_id(given), timeout=TIMEOUT_S)


_DO: Mapping[str, Callable[[WorkflowHandle[Any], Form], Awaitable[Any]]] = {
    "signal": _signal,
    "query": _query,
    "cancel": _cancel,
    "terminate": _terminate,
}


def _required(given: Form, name: str, what: str) -> str:
    found = given.get(name, "").strip()
    if not found:
        raise UsageError(f"{what} is missing")
    return found


def arguments_of(text: str) -> list[Any]:
    """Arguments from a field of a form: a JSON array, or nothing.

    Raises:
        UsageError: it is neither.
    """
    if not text.strip():
        return []
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f'the arguments are not JSON: {error}; give an array, such as ["Ann", 3]') from error
    if not isinstance(found, list):
        raise UsageError(
            f"the arguments are {text.strip()[:60]!r}; put them into an array, such as [{text.strip()[:60]}]"
        )
    return found


def request_id(given: Form) -> str:
    """Made of the token and of what was written: the same for a form that is sent again, and for no other."""
    return f"page-{sha256(json.dumps(sorted(given.items())).encode()).hexdigest()[:32]}"


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form that a browser sends.

    Raises:
        UsageError: it is too large, or no form.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise UsageError(f"the form has more than {MAX_BODY_BYTES} bytes; keep large data elsewhere")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise UsageError(f"this is not a form of this page: {error}") from error
