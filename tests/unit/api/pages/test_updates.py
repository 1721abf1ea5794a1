"""Updates of a run's page, over a real engine: what comes by itself, and from where it goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import html5lib
import httpx
import pytest
from starlette.requests import Request

from orchestrator.api.pages import run as run_module
from orchestrator.api.pages import timelines, updates
from orchestrator.api.pages.live import STILL_HERE
from orchestrator.api.pages.timelines import Timelines
from orchestrator.api.pages.updates import PARTS, Updates
from orchestrator.api.reads import ThreadedReader
from orchestrator.protocol import events as e
from orchestrator.protocol.views import History
from tests.unit.api.conftest import ADDRESS
from tests.unit.api.pages.kit import Page, words
from tests.unit.api.pages.test_live import Browser
from tests.unit.view.shelf import Shelf

API = "/api/v1/workflows/w"
DAY_MS = 86_400_000
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

    async def turn(self) -> str:
        """The last one."""
        history = (await self.http.get(f"{API}/history")).json()
        return str(history["turns"][-1]["turn"])

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
        parts = messages(browser.text)[-1][1]
        assert "Terminated" in said(parts["summary"])
        assert said(parts["actions"]) == "Query… Where did the code wait?"
    last = messages(browser.text)[-1][0]
    async with run.live(address, last) as browser:
        await browser.sees("event: close")
        assert not messages(browser.text)


async def test_an_older_page_of_events_stays_where_it_is(run: Run) -> None:
    async with run.live(await run.address("?at=2.2")) as browser:
        await run.signal()
        await browser.sees("3 events")
        (message,) = messages(browser.text)
        assert tuple(message[1]) == ("summary", "actions", "values", "open", "drawing")


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


async def test_what_is_open_grows_in_the_drawing_though_nothing_happens(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (updates, run_module):
        monkeypatch.setattr(module, "REDRAW_S", 0.01)
    monkeypatch.setattr(updates, "REDRAW_COST", 0)
    async with run.live(await run.address()) as browser:
        await browser.sees("run-drawing")
        await browser.sees("run-drawing", times=2)
        drawings = [parts for _, parts in messages(browser.text)]
        assert [tuple(parts) for parts in drawings[:2]] == [("drawing",), ("drawing",)]
        assert drawings[0] != drawings[1]
        assert {number for number, _ in messages(browser.text)} == {await run.turn()}


class Shown:
    """A run's page over stores that a test fills, and what it is told."""

    def __init__(self, shelf: Shelf, reader: ThreadedReader) -> None:
        self.shelf, self.reader = shelf, reader
        self.timelines = Timelines(reader)
        self.run_id = shelf.run("w")
        self.now_ms = 10_000
        self.drawings = 0

    async def look(self) -> dict[str, Any]:
        self.drawings += 1
        look = await self.timelines.look("w", self.run_id, self.now_ms)
        return {"look": look, "max_turns": 9}

    def updates(self) -> Updates:
        request = Request({"type": "http", "path": "/", "headers": [], "root_path": ""})
        return Updates(request, self.reader, ("w", self.run_id), self.look, self.look, turn=1)


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.close()


async def test_of_a_drawing_that_looks_as_before_only_the_end_is_told(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0.0, updates.REDRAW_S)
    monkeypatch.setattr(updates, "monotonic", lambda: next(clock))
    monkeypatch.setattr(updates, "REDRAW_COST", 0)
    page = Shown(shelf, ThreadedReader(shelf.reader))
    told = page.updates()
    sizes = []
    for page.now_ms in (2 * DAY_MS, 2 * DAY_MS + 1_000, 3 * DAY_MS):
        update = await told.next()
        assert update is not None
        assert 'data-ago="' + str(page.now_ms) in update.html
        sizes.append("run-drawing" in update.html)
    assert sizes == [True, False, True]


async def test_a_drawing_that_takes_long_is_made_again_less_often(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 0.0
    monkeypatch.setattr(updates, "monotonic", lambda: now_s)
    page = Shown(shelf, ThreadedReader(shelf.reader))

    async def slowly() -> dict[str, Any]:
        nonlocal now_s
        now_s += 1.0
        return await Shown.look(page)

    monkeypatch.setattr(page, "look", slowly)
    told = page.updates()
    for _ in range(1_000):
        now_s += 1.0
        await told.next()
    assert page.drawings == 1_000 // updates.REDRAW_COST


class Closing(ThreadedReader):
    """Reads a history just before its run closes."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf.reader)
        self.close: Callable[[], None] = lambda: None

    async def history(self, *args: Any, **bounds: Any) -> History:
        found = await super().history(*args, **bounds)
        self.close()
        self.close = lambda: None
        return found


async def test_a_run_that_closes_while_a_browser_connects_is_told_of(shelf: Shelf) -> None:
    reader = Closing(shelf)
    page = Shown(shelf, reader)
    reader.close = lambda: shelf.go_on(page.run_id, (e.WorkflowCompleted(),))
    assert await page.updates().next() is None, "the end without what it was would leave the page behind"
