"""Signal, query, cancel and terminate from the page, and where the code waits: over a real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from orchestrator.api.pages import actions as module
from orchestrator.api.pages.actions import arguments_of, request_id
from orchestrator.errors import UsageError
from tests.unit.api.conftest import ADDRESS
from tests.unit.api.pages.kit import HOSTILE, Page, faults, words

API = "/api/v1/workflows"


class Run:
    """A run of the workflow ``Greeting``, and a browser that looks at it."""

    def __init__(self, http: httpx.AsyncClient, run_id: str) -> None:
        self.http, self.run_id = http, run_id
        self.path = f"/workflows/order%2F17/{run_id}"

    async def get(self, path: str, *, status: int = 200) -> Page:
        answer = await self.http.get(path, timeout=30)
        return self._page(answer, status)

    async def form(self, name: str) -> dict[str, str]:
        """The hidden fields of a form."""
        page = await self.get(f"{self.path}/do/{name}")
        (form,) = [one for one in page.all("form") if one.get("method") == "post"]
        assert form.attrib["action"] == f"{self.path}/do/{name}"
        return {one.attrib["name"]: one.get("value", "") for one in form.iter("input")}

    async def post(self, name: str, /, origin: str = ADDRESS, **fields: str) -> httpx.Response:
        return await self.http.post(
            f"{self.path}/do/{name}", data=fields, headers={"Origin": origin}, timeout=30
        )

    async def refused(self, name: str, status: int, /, **fields: str) -> str:
        """What the page says when it does not do that."""
        answer = await self.post(name, **{**await self.form(name), **fields})
        return words(self._page(answer, status).one("p[@class='problem']"))

    async def done(self, name: str, /, **fields: str) -> Page:
        """The page of the run after an action."""
        answer = await self.post(name, **{**await self.form(name), **fields})
        assert answer.status_code == 303, answer.text
        return await self.get(answer.headers["location"])

    async def events(self, kind: str) -> list[dict[str, object]]:
        history = (await self.http.get(f"{API}/order%2F17/history")).json()
        found = [event for turn in history["turns"] for event in turn["events"]]
        return [event for event in found if event["event"] == kind]

    def _page(self, answer: httpx.Response, status: int) -> Page:
        assert answer.status_code == status, answer.text
        page = Page(answer)
        assert not list(faults(page, ""))
        return page


@pytest.fixture
async def run(transport: httpx.ASGITransport) -> AsyncIterator[Run]:
    async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as http:
        body = {"type": "Greeting", "id": "order/17", "input": ["Ann", 9]}
        yield Run(http, (await http.post(API, json=body)).json()["run_id"])


async def test_a_signal_is_sent_and_the_page_shows_it(run: Run) -> None:
    page = await run.done("signal", name="add", arguments='["Bob <b>"]')
    assert words(page.one("p[@class='notice']")) == "The signal was accepted."
    shown = page.table("div[@id='run-events']/div/table")
    assert (shown[0][3], shown[0][4].split()[0]) == ("WorkflowSignaled", "add")
    assert "Bob <b>" in shown[0][4]
    (event,) = await run.events("WorkflowSignaled")
    assert event["identity"] == "page"


async def test_a_form_that_is_sent_twice_has_one_effect_and_another_text_has_another(run: Run) -> None:
    form = await run.form("signal")
    form |= {"name": "add", "arguments": '["Bob"]'}
    for _ in range(2):
        assert (await run.post("signal", **form)).status_code == 303
    assert len(await run.events("WorkflowSignaled")) == 1
    # back in the browser, and something else written into the same form
    assert (await run.post("signal", **{**form, "arguments": '["Cid"]'})).status_code == 303
    # a new form is meant
    await run.done("signal", name="add", arguments='["Bob"]')
    assert len(await run.events("WorkflowSignaled")) == 3


async def test_a_page_of_another_site_does_nothing(run: Run) -> None:
    for action in module.ACTIONS:
        fields = {**await run.form(action), "name": "add", "reason": "because"}
        answer = await run.post(action, origin="https://evil.example", **fields)
        assert answer.status_code == 403
    described = (await run.http.get(f"{API}/order%2F17")).json()
    assert (described["row"]["status"], described["cancel_requested"]) == ("Running", False)
    assert not await run.events("WorkflowSignaled")


async def test_to_cancel_and_to_terminate_take_a_reason(run: Run) -> None:
    for name in ("cancel", "terminate"):
        assert await run.refused(name, 422, reason="  ") == "a reason is missing"
    page = await run.done("terminate", reason="ordered by <i>mistake</i>")
    assert words(page.one("h1")) == "order/17 Terminated"
    assert words(page.one("p[@class='notice']")) == "The run was terminated."
    (event,) = await run.events("WorkflowTerminated")
    assert (event["reason"], event["identity"]) == ("ordered by <i>mistake</i>", "page")


async def test_cancellation_is_requested(run: Run) -> None:
    page = await run.done("cancel", reason="no stock")
    assert words(page.all("p[@class='notice']")[0]) == "Cancellation was requested."
    (event,) = await run.events("WorkflowCancelRequested")
    assert event["reason"] == "no stock"


async def test_a_closed_run_refuses_in_words(run: Run) -> None:
    await run.done("terminate", reason="enough")
    assert "closed" in await run.refused("signal", 409, name="add", arguments="[]")
    page = await run.get(f"{run.path}/stack")
    assert "Greeting.run" in words(page.one("pre"))  # where it stood


async def test_no_answer_is_said_and_the_form_may_be_sent_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.0)
    monkeypatch.setattr(module, "STACK_TIMEOUT_S", 0.0)
    page = await run.get(f"{run.path}/stack", status=503)
    assert "no answer to QueryWorkflow" in words(page.one("p[@class='problem']"))
    form = await run.form("cancel") | {"reason": "no stock"}
    page = run._page(await run.post("cancel", **form), 503)
    assert "the outcome is unknown" in words(page.one("p[@class='problem']"))
    shown = {one.attrib["name"]: one.get("value") for one in page.one("form[@method='post']").iter("input")}
    assert shown == form
    monkeypatch.undo()
    assert (await run.post("cancel", **form)).status_code == 303
    assert len(await run.events("WorkflowCancelRequested")) == 1


async def test_a_query_is_answered_on_the_page_and_what_was_asked_stays(run: Run) -> None:
    answer = await run.post("query", **{**await run.form("query"), "name": "count"})
    page = run._page(answer, 200)
    assert page.one("pre").text == "0"
    (box,) = [one for one in page.all("input") if one.get("name") == "name"]
    assert box.attrib["value"] == "count"


async def test_what_is_wrong_with_a_query_is_said(run: Run) -> None:
    assert "count" in await run.refused("query", 404, name="cuont", arguments="")
    assert await run.refused("query", 422, name="count", arguments="3") == (
        "the arguments are '3'; put them into an array, such as [3]"
    )
    assert (await run.refused("query", 422, name="count", arguments="[")).startswith(
        "the arguments are not JSON: "
    )
    assert await run.refused("query", 422, name=" ") == "the name of the query is missing"


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_was_written_is_shown_as_text(run: Run, name: str) -> None:
    answer = await run.post("query", **{**await run.form("query"), "name": name, "arguments": name})
    page = run._page(answer, 422)
    assert page.one("textarea").text == name
    assert not [one for one in page.all("script") if one.text]


async def test_a_form_in_a_dialog_is_answered_there(run: Run) -> None:
    for name, posted in (("query", True), ("signal", False)):
        answer = await run.http.get(f"{run.path}/do/{name}", headers={"HX-Request": "true"})
        part = Page(answer, whole=False)
        (form,) = part.all("form")
        assert ("hx-post" in form.attrib) is posted
        assert form.get("hx-target") == ("#dialog-content" if posted else None)
    headers = {"HX-Request": "true", "Origin": ADDRESS}
    answer = await run.http.post(f"{run.path}/do/query", data={"name": "count"}, headers=headers, timeout=30)
    assert words(Page(answer, whole=False).one("pre")) == "0"


async def test_where_the_code_waits(run: Run) -> None:
    page = await run.get(f"{run.path}/stack")
    assert "conftest.py" in words(page.one("pre"))
    part = Page(await run.http.get(f"{run.path}/stack", headers={"HX-Request": "true"}), whole=False)
    assert "execute_activity" in words(part.one("pre"))


async def test_what_there_is_not_to_do(run: Run) -> None:
    page = await run.get(f"{run.path}/do/explode", status=404)
    assert words(page.one("p[@class='problem']")) == (
        "there is no action 'explode'; there are signal, query, cancel, terminate"
    )
    unknown = Run(run.http, "f" * 32)
    answer = await unknown.post("cancel", reason="because")
    assert "there is no open run" in words(unknown._page(answer, 404).one("p[@class='problem']"))


async def test_what_is_no_form_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{run.path}/do/signal"
    assert (await run.http.post(path, content=b"name=\xff")).status_code == 422
    assert (await run.http.post(path, content="&".join("a=b" for _ in range(99)))).status_code == 422
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 10)
    page = run._page(await run.http.post(path, content=b"name=" + b"x" * 10), 422)
    assert "has more than 10 bytes" in words(page.one("p[@class='problem']"))


async def test_the_address_after_an_action_holds_no_words_to_show(run: Run) -> None:
    fields = await run.form("signal") | {"name": "add", "arguments": '["Bob"]'}
    answer = await run.post("signal", **fields)
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert query["done"] == ["signal"]
    page = await run.get(f"{run.path}?done=Your+account+is+locked")
    assert not page.all("p[@class='notice']")
    for name in ("cancel", "terminate"):
        page = await run.get(f"{run.path}?done={name}")
        assert not page.all("p[@class='notice']"), "of what was not done nothing is said"


async def test_the_list_of_events_is_the_same_after_an_action(run: Run) -> None:
    page = await run.get(f"{run.path}?show=signals&order=oldest&at=1.1")
    form = await run.get(page.link("Signal…"))
    assert form.link("Back") == f"{run.path}?show=signals&order=oldest"
    (address,) = [one.attrib["action"] for one in form.all("form") if one.get("method") == "post"]
    fields = {"name": "add", "arguments": '["Bob"]'}
    answer = await run.http.post(address, data=fields, headers={"Origin": ADDRESS}, timeout=30)
    query = parse_qs(urlsplit(answer.headers["location"]).query)
    assert (query["show"], query["order"], query["done"]) == (["signals"], ["oldest"], ["signal"])
    assert "at" not in query


@pytest.mark.parametrize(
    ("text", "found"), [("", []), (" \n", []), ("[]", []), ('["a", {"b": 1}]', ["a", {"b": 1}])]
)
def test_arguments(text: str, found: list[object]) -> None:
    assert arguments_of(text) == found


@pytest.mark.parametrize("text", ["{}", "1", '"a"', "null", "[", "[" * 100_000])
def test_what_are_no_arguments(text: str) -> None:
    with pytest.raises(UsageError):
        arguments_of(text)


def test_request_ids_are_short_and_of_what_was_written() -> None:
    given = {"token": "t" * 10_000, "name": "a"}
    assert request_id(given) == request_id(dict(reversed(given.items())))
    assert request_id(given) != request_id({**given, "name": "b"})
    assert len(request_id(given)) < 100
