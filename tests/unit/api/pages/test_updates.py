"""Updates of a run's page, over a real engine: what comes by itself, and from where it goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import html5lib
import httpx
import pytest

from orchestrator.api.pages import timelines
from orchestrator.api.pages.live import STILL_HERE
from orchestrator.api.pages.updates import PARTS
from tests.unit.api.conftest import ADDRESS
from tests.unit.api.pages.kit import Page, words
from tests.unit.api.pages.test_live import Browser

API = "/api/v1/workflows/w"
HOST = (b"host", ADDRESS.removeprefix("http://").encode())


class Run:
    """A run, whose page somebody looks at."""

    def __init__(self, transport: httpx.ASGITransport, http: httpx.AsyncClient, run_id: str) -> None:
        self._app, self.http, self.run_id = transport.app, http, run_id
        self.path = f"/workflows/w/{run_id}"

    async def page(self, query: str = "") -> Page:
        return Page(await self.http.get(self.path + query))

    async def address(self, query: str = "") -> str:
        """Where the page says that it gets its updates."""
        page = await self.page(query)
        (found,) = [one.attrib["hx-sse:connect"] for one in page.all("div") if "hx-sse:connect" in one.attrib]
        return found

    async def signal(self, name: str = "add") -> None:
        assert (await self.http.post(f"{API}/signals/{name}", json={"input": ["Bob"]})).status_code == 204

    async def terminate(self) -> None:
        assert (await self.http.post(f"{API}/terminate", json={"reason": "enough"})).status_code == 204

    @asynccontextmanager
    async def live(self, address: str, last: str = "") -> AsyncIterator[Browser]:
        """A browser that takes the updates of an address."""
        url, browser = urlsplit(address), Browser()
        headers = [HOST, *([(b"last-event-id", last.encode())] if last else [])]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": url.path,
            "raw_path": url.path.encode(),
            "query_string": url.query.encode(),
            "root_path": "",
            "headers": headers,
        }
        task = asyncio.create_task(self._app(scope, browser.receive, browser.send))  # type: ignore[arg-type]
        browser.ended = task
        try:
            yield browser
        finally:
            browser.gone.set()
            async with asyncio.timeout(20):
                await task


@pytest.fixture
async def run(transport: httpx.ASGITransport) -> AsyncIterator[Run]:
    async with httpx.AsyncClient(transport=transport, base_url=ADDRESS, timeout=30) as http:
        answer = await http.post(
            "/api/v1/workflows", json={"type": "Greeting", "id": "w", "input": ["Ann", 99]}
        )
        yield Run(transport, http, answer.json()["run_id"])


def messages(text: str) -> list[tuple[str, dict[str, str]]]:
    """The messages that came: their ids, and what they change."""
    found = []
    for message in text.split("\n\n"):
        lines = message.split("\n")
        data = "\n".join(line.removeprefix("data: ") for line in lines if line.startswith("data: "))
        parts = re.findall(
            r'<hx-partial hx-target="#run-(\w+)" hx-swap="innerMorph">(.*?)</hx-partial>', data, re.DOTALL
        )
        if parts:
            (number,) = [line.removeprefix("id: ") for line in lines if line.startswith("id: ")]
            found.append((number, dict(parts)))
    return found


def said(html: str) -> str:
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return words(parser.parseFragment(html))


async def test_what_happens_comes_by_itself(run: Run) -> None:
    async with run.live(await run.address()) as browser:
        await browser.sees(STILL_HERE)
        assert not messages(browser.text)
        await run.signal()
        await browser.sees("WorkflowSignaled")
        (number, parts) = messages(browser.text)[0]
        assert tuple(parts) == PARTS
        assert "WorkflowSignaled" in said(parts["events"])
        assert f"in {number} turns" in said(parts["summary"])
        assert said(parts["drawing"]).count("add") >= 2  # in the drawing and in its table


async def test_parts_that_stay_as_they_are_are_not_sent_again(run: Run) -> None:
    async with run.live(await run.address()) as browser:
        await run.signal()
        await browser.sees("WorkflowSignaled")
        first = len(messages(browser.text))
        await run.signal()
        await browser.sees("4 events")
        later = dict(part for _, parts in messages(browser.text)[first:] for part in parts.items())
        assert "events" in later
        assert "open" not in later


async def test_a_browser_that_comes_again_gets_what_it_has_missed_and_nothing_else(run: Run) -> None:
    address = await run.address()
    async with run.live(address) as browser:
        await run.signal()
        await browser.sees("WorkflowSignaled")
        last = messages(browser.text)[-1][0]
    async with run.live(address, last) as browser:
        await browser.sees(STILL_HERE)
        await run.signal()
        await browser.sees("4 events")
        (message,) = messages(browser.text)
        assert int(message[0]) > int(last)
    async with run.live(address, last) as browser:  # it happened while nobody listened
        await browser.sees("4 events")


async def test_the_close_is_the_last_that_comes(run: Run) -> None:
    address = await run.address()
    async with run.live(address) as browser:
        await run.terminate()
        await browser.sees("event: close")
        async with asyncio.timeout(20):
            await browser.ended
        assert "Terminated" in said(messages(browser.text)[-1][1]["summary"])
    last = messages(browser.text)[-1][0]
    async with run.live(address, last) as browser:
        await browser.sees("event: close")
        assert not messages(browser.text)


async def test_an_older_page_of_events_stays_where_it_is(run: Run) -> None:
    async with run.live(await run.address("?at=2.2")) as browser:
        await run.signal()
        await browser.sees("3 events")
        (message,) = messages(browser.text)
        assert tuple(message[1]) == ("summary", "values", "open", "drawing")


async def test_a_list_of_failures_stays_one(run: Run) -> None:
    async with run.live(await run.address("?show=failures")) as browser:
        await run.signal()
        await browser.sees("3 events")
        (message,) = messages(browser.text)
        assert "There are no such events." in said(message[1]["events"])


async def test_a_run_beyond_what_is_drawn_is_told_of_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "READ_TURNS", 1)
    monkeypatch.setattr(timelines, "MAX_TURNS_DRAWN", 1)
    async with run.live(await run.address()) as browser:
        await run.signal()
        await browser.sees("3 events")
        came = len(messages(browser.text))
        assert messages(browser.text)[-1][0] == "2"
        body = {"type": "Greeting", "id": "w2", "input": ["bad"]}
        for _ in range(8):
            await run.http.post("/api/v1/workflows", json=body)
        await run.signal()
        await browser.sees("4 events")
        assert len(messages(browser.text)) == came + 1


async def test_another_run_of_the_partition_changes_nothing(run: Run) -> None:
    async with run.live(await run.address()) as browser:
        for number in range(8):
            body = {"type": "Greeting", "id": f"other-{number}", "input": ["bad"]}
            assert (await run.http.post("/api/v1/workflows", json=body)).status_code == 201
        await run.signal()
        await browser.sees("WorkflowSignaled")
        assert len(messages(browser.text)) == 1
