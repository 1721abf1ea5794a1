"""What changes on a page: sent when it differs, and only that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import html5lib
import pytest
from starlette.requests import Request

from orchestrator.api.pages import cluster, overview, rendering
from orchestrator.api.pages.parts import Parts
from orchestrator.protocol import events as e
from orchestrator.protocol.tasks import CoordinatorBeat, QueueBacklog
from orchestrator.protocol.views import FailureGroup, FailureGroups, RunPage
from tests.unit.api.pages.kit import Site, words
from tests.unit.view.shelf import FAILED

SOON_S = 30.0


def request(last: str = "") -> Request:
    headers = [(b"last-event-id", last.encode())] if last else []
    return Request({"type": "http", "path": "/failures", "headers": headers, "root_path": ""})


def group(runs: int, last_time_ms: int = 1_000) -> FailureGroup:
    return FailureGroup(
        fingerprint="f",
        runs=runs,
        workflow_type="Order",
        activity_type="",
        failure_type="",
        message="<b>",
        first_time_ms=1_000,
        last_time_ms=last_time_ms,
    )


class Failures:
    """What a page shows, as a test wishes."""

    def __init__(self) -> None:
        self.groups: tuple[FailureGroup, ...] = ()

    async def look(self) -> dict[str, Any]:
        return {"failures": FailureGroups(groups=self.groups)}

    def parts(self, last: str = "") -> Parts:
        return Parts(request(last), "failures.html", {"live": "live"}, self.look)


async def test_only_what_differs_is_sent() -> None:
    page = Failures()
    parts = page.parts()
    first = await parts.next()
    assert first is not None
    assert await parts.next() is None
    page.groups = (group(1),)
    second = await parts.next()
    assert second is not None
    assert second.html.startswith('<hx-partial hx-target="#live" hx-swap="innerMorph">')
    assert "&lt;b&gt;" in second.html
    assert second.id != first.id
    assert await parts.next() is None


async def test_of_several_parts_those_are_sent_that_differ() -> None:
    shown: dict[str, Any] = {
        "q": "",
        "page": "",
        "new": 0,
        "page_rows": 100,
        "examined": 9,
        "found": RunPage(rows=()),
    }

    async def look() -> dict[str, Any]:
        return shown

    parts = Parts(request(), "runs.html", {"news": "news", "list": "list"}, look)
    first = await parts.next()
    assert first is not None
    assert first.html.count("<hx-partial") == 2
    shown["new"] = 7
    second = await parts.next()
    assert second is not None
    assert second.html.count("<hx-partial") == 1
    assert "7 new: load" in second.html


async def test_who_comes_again_gets_what_has_changed_since() -> None:
    page = Failures()
    first = await page.parts().next()
    assert first is not None
    assert await page.parts(first.id).next() is None
    again = page.parts(first.id)
    assert await again.next() is None
    page.groups = (group(1),)
    assert await again.next() is not None
    assert await page.parts(first.id).next() is not None


async def test_time_that_goes_by_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Failures()
    page.groups = (group(1),)
    parts = page.parts()
    monkeypatch.setattr(rendering, "now_ms", lambda: 10_000)
    assert await parts.next() is not None
    monkeypatch.setattr(rendering, "now_ms", lambda: 99_000)
    assert await parts.next() is None
    page.groups = (group(1, last_time_ms=2_000),)
    assert await parts.next() is not None


# ------------------------------------------------------------------------------------ as browsers get it


class Stream:
    """The messages of one page, as they come."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str] = asyncio.Queue()

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200
        elif b"data:" in message["body"]:
            await self.queue.put(message["body"].decode())

    async def next(self) -> str:
        """The words of the next message, by the parts that it is made of."""
        async with asyncio.timeout(SOON_S):
            event = await self.queue.get()
        data = [line[6:] for line in event.split("\n") if line.startswith("data: ")]
        tree = html5lib.parseFragment("\n".join(data), namespaceHTMLElements=False)
        return "; ".join(f"{one.attrib['hx-target']} {words(one)}" for one in tree.iter("hx-partial"))


@asynccontextmanager
async def stream(site: Site, path: str) -> AsyncIterator[Stream]:
    """What a page is told; httpx would wait for the end of it."""
    found, gone = Stream(), asyncio.Event()

    async def receive() -> Any:
        await gone.wait()
        return {"type": "http.disconnect"}

    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "headers": [(b"host", b"127.0.0.1")],
    }
    serving = asyncio.create_task(site.app(scope, receive, found.send))
    try:
        yield found
    finally:
        gone.set()
        await serving


PLACES = {
    "/live/overview": "#counts",
    "/live/workflows": "#filters",
    "/live/failures": "#live",
    "/live/stuck": "#live",
}


@pytest.mark.parametrize("path", PLACES)
async def test_a_page_hears_of_what_happens(site: Site, path: str) -> None:
    async with stream(site, path) as page:
        assert PLACES[path] in await page.next()
        failed = (
            e.ActivityScheduled(activity_id=1, activity_type="charge", task_queue="gpu"),
            e.WorkflowFailed(failure=FAILED),
        )
        blocked = (e.WorkflowBlocked(reason="bug", failure=FAILED),)
        await asyncio.to_thread(lambda: (site.shelf.run("bad", failed), site.shelf.run("stuck", blocked)))
        async with asyncio.timeout(SOON_S):
            while "sanctions hit" not in await page.next():
                pass


@pytest.mark.parametrize("path", ["/live/queues", "/live/cluster", "/live/overview"])
async def test_beats_are_looked_at_though_no_history_comes(
    site: Site, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (cluster, overview):
        monkeypatch.setattr(module, "BEATS_S", 0.01)
    async with stream(site, path) as page:
        await page.next()
        backlog = QueueBacklog(task_queue="gpu", waiting=7, oldest_time_ms=1_000)
        site.beat(
            CoordinatorBeat(
                coordinator="c", identity="c@host", number=1, partitions=(0,), backlogs=(backlog,)
            )
        )
        async with asyncio.timeout(SOON_S):
            while not {"gpu", "c@host"} & set((await page.next()).split()):
                pass
