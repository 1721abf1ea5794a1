"""The JSON of the API, over a real engine and without a network."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from orchestrator.activity.definition import ActivityDefinition
from orchestrator.log.http import HttpLog
from orchestrator.protocol.views import History
from orchestrator.worker.worker import Worker
from tests.unit.api.conftest import ADDRESS

PATH = "/workflows/order%2F17"


async def start(http: httpx.AsyncClient, *input: object, id: str = "order/17") -> httpx.Response:
    return await http.post("/workflows", json={"type": "Greeting", "id": id, "input": input})


async def test_a_workflow_from_start_to_result(
    http: httpx.AsyncClient, transport: httpx.ASGITransport, greet_definition: ActivityDefinition
) -> None:
    started = await start(http, "Ann", 1)
    assert started.status_code == 201
    run_id = started.json()["run_id"]

    open_ = await http.get(f"{PATH}/result")
    assert (open_.status_code, open_.json()["status"]) == (202, "Running")
    described = (await http.get(PATH)).json()
    assert described["row"]["workflow_id"] == "order/17"
    assert described["input"] == ["Ann", 1]
    assert [found["activity_type"] for found in described["pending_activities"]] == ["greet"]
    raw = (await http.get(PATH, params={"payloads": "raw"})).json()
    assert raw["input"][0]["data"] == "IkFubiI="

    assert (await http.post(f"{PATH}/signals/add", json={"input": ["Bob"]})).status_code == 204
    assert (await http.post(f"{PATH}/queries/count")).json() == {"result": 1}
    log = HttpLog(ADDRESS, transport=transport)
    async with Worker(log, activities=[greet_definition]):
        result = await http.get(f"{PATH}/result", params={"wait_s": 20}, timeout=30)
    await log.close()
    assert result.status_code == 200
    assert result.json() == {
        "workflow_id": "order/17",
        "run_id": run_id,
        "status": "Completed",
        "result": "hello Ann and Bob",
        "failure": None,
        "tags": [],
    }
    exported = (await http.get(f"{PATH}/history")).content
    history = msgspec.json.decode(exported, type=History)
    assert history.run_id == run_id
    assert msgspec.json.encode(history) == exported


async def test_a_failed_run_is_an_answer_and_not_an_error(http: httpx.AsyncClient) -> None:
    await start(http, "bad")
    result = await http.get(f"{PATH}/result", params={"wait_s": 20}, timeout=30)
    failure = result.json()["failure"]
    assert (result.status_code, result.json()["status"]) == (200, "Failed")
    assert (failure["type"], failure["message"], failure["details"]) == (
        "Unknown",
        "no such person",
        [{"name": "bad"}],
    )


async def test_lists_are_filtered_and_paged(http: httpx.AsyncClient) -> None:
    for number in range(3):
        await start(http, "bad", id=f"a-{number}")
    await start(http, "Ann", id="b-0")
    page = (await http.get("/workflows", params={"id_prefix": "a-", "limit": 2})).json()
    rest = (await http.get("/workflows", params={"id_prefix": "a-", "page": page["next_page"]})).json()
    assert [row["workflow_id"] for row in page["rows"] + rest["rows"]] == ["a-2", "a-1", "a-0"]
    assert rest["next_page"] == ""
    running = (await http.get("/workflows", params={"status": "Running"})).json()
    assert [row["workflow_id"] for row in running["rows"]] == ["b-0"]


@pytest.mark.parametrize("how", ["cancel", "terminate"])
async def test_a_run_is_closed_from_outside(http: httpx.AsyncClient, how: str) -> None:
    await start(http, "Ann", 1)
    assert (await http.post(f"{PATH}/{how}", json={"reason": "a mistake"})).status_code == 204
    result = await http.get(f"{PATH}/result", params={"wait_s": 20}, timeout=30)
    assert result.json()["status"] == {"cancel": "Canceled", "terminate": "Terminated"}[how]


async def test_a_repeated_request_starts_once(http: httpx.AsyncClient) -> None:
    body = {"type": "Greeting", "id": "once", "input": ["Ann"], "request_id": "r-1"}
    first = await http.post("/workflows", json=body)
    assert (await http.post("/workflows", json=body)).json() == first.json()


async def test_every_error_has_one_shape(http: httpx.AsyncClient) -> None:
    await start(http, "Ann", 1)
    await start(http, "bad", id="closed")
    await http.get("/workflows/closed/result", params={"wait_s": 20}, timeout=30)
    ann = {"type": "Greeting", "id": "order/17", "input": ["Ann"]}
    table = [
        ("POST", "/workflows", ann, 409, "workflow-already-started", "is in use by the open run"),
        ("POST", "/workflows", {**ann, "type": "Nope", "id": "n"}, 404, "unknown-name", "known: Greeting"),
        ("POST", "/workflows", {**ann, "id": ""}, 422, "invalid-request", "the workflow id is empty"),
        ("POST", "/workflows", {**ann, "name": 1}, 422, "invalid-request", "unknown field `name`"),
        ("POST", "/workflows", {**ann, "input": ["x" * 300_000]}, 413, "payload-refused", "at most 262144"),
        ("POST", "/workflows", {**ann, "summary": "x" * 5_000_000}, 413, "payload-refused", "more than"),
        ("GET", "/workflows/nix", None, 404, "workflow-not-found", "no workflow id 'nix'"),
        ("GET", "/workflows/nix/result", None, 404, "workflow-not-found", "no workflow id 'nix'"),
        ("GET", "/workflows/nix/history", None, 404, "workflow-not-found", "no workflow id 'nix'"),
        ("GET", "/workflows?status=Odd", None, 422, "invalid-request", "query.status"),
        ("GET", "/workflows?page=a", None, 422, "invalid-request", "page token"),
        ("POST", "/workflows/nix/signals/add", {"input": ["x"]}, 404, "workflow-not-found", "nix"),
        ("POST", "/workflows/closed/signals/add", {"input": ["x"]}, 409, "workflow-closed", "closed"),
        (
            "POST",
            f"{PATH}/signals/add",
            {},
            422,
            "invalid-arguments",
            "takes 1 argument(s), and 0 were given",
        ),
        ("POST", f"{PATH}/signals/nope", {}, 404, "unknown-name", "no signal 'nope'; known: add"),
        ("POST", f"{PATH}/queries/nope", {}, 404, "unknown-name", "no query 'nope'"),
        ("POST", f"{PATH}/queries/count", {"input": [1, 2]}, 422, "query-failed", "count"),
        ("POST", "/nothing", {}, 404, "no-such-path", "openapi.json"),
        ("DELETE", "/workflows", None, 405, "no-such-path", "openapi.json"),
    ]
    for method, path, body, status, code, words in table:
        response = await http.request(method, path, json=body)
        problem = response.json()
        assert (response.status_code, problem.get("error")) == (status, code), (path, problem)
        assert words in problem["message"], (path, problem)


async def test_a_callers_trace_goes_on_in_the_run(http: httpx.AsyncClient) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    body = {"type": "Greeting", "id": "order/17", "input": ["bad"]}
    await http.post("/workflows", json=body, headers={"traceparent": parent, "tracestate": "a=b"})
    await start(http, "bad", id="later")
    found = [(await http.get(f"/workflows/{id}/history")).json() for id in ("order%2F17", "later")]
    headers = [history["turns"][0].get("headers", {}) for history in found]
    assert headers == [{"traceparent": parent, "tracestate": "a=b"}, {}]
