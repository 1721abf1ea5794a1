from __future__ import annotations

import asyncio
from itertools import count

import pytest
from starlette.types import Message

from orchestrator.api import watch as watch_module
from orchestrator.api.pages import live as module
from orchestrator.api.pages.live import Live, Update, event
from orchestrator.api.watch import Watch, Watcher
from orchestrator.errors import Unavailable, WorkflowNotFound

SOON_S = 10.0

SCOPE = {"type": "http", "asgi": {"spec_version": "2.3"}, "method": "GET", "headers": []}


class Browser:
    """Takes an answer as a server hands it on."""

    def __init__(self, *, takes: int = 1_000) -> None:
        self.text = ""
        self.status = 0
        self.gone = asyncio.Event()
        self.came = asyncio.Event()
        self._takes = takes

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        self._takes -= 1
        if self._takes < 0:
            await asyncio.Event().wait()
        self.text += message["body"].decode()
        self.came.set()

    async def sees(self, words: str, *, times: int = 1) -> None:
        async with asyncio.timeout(SOON_S):
            while self.text.count(words) < times:
                self.came.clear()
                await self.came.wait()


class Page:
    """Something that changes, and what a browser is told of it."""

    def __init__(self) -> None:
        self.positions = [0]
        self.watch = Watch(lambda: self.positions)
        self.number = 0
        self.asked = 0
        self.error: Exception | None = None
        self.last = False
        self._told = 0

    def change(self) -> None:
        self.number += 1
        self.positions[0] += 1

    async def updates(self) -> Update | None:
        self.asked += 1
        if self.error is not None:
            raise self.error
        if self.number == self._told:
            return None
        self._told = self.number
        return Update(f"<p>{self.number}</p>", str(self.number), last=self.last)

    def open(self, browser: Browser) -> asyncio.Task[None]:
        answer = Live(self.watch, 0, self.updates)
        return asyncio.create_task(answer(SCOPE, browser.receive, browser.send))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "LOOK_S", 0.01)


async def ends(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(SOON_S):
        await task


async def test_what_changes_is_told_with_how_far_it_has_come() -> None:
    page, browser = Page(), Browser()
    page.change()
    task = page.open(browser)
    await browser.sees("id: 1\ndata: <p>1</p>\n\n")
    page.change()
    await browser.sees("id: 2\ndata: <p>2</p>\n\n")
    await page.watch.close()
    await ends(task)


async def test_nothing_is_told_of_what_the_page_shows_already() -> None:
    page, browser = Page(), Browser()
    task = page.open(browser)
    await browser.sees(module.STILL_HERE)
    page.positions[0] += 1  # of another run
    page.change()
    await browser.sees("<p>1</p>")
    assert browser.text.count("data:") == 1
    browser.gone.set()
    await ends(task)


async def test_a_flood_is_a_few_messages() -> None:
    page, browser = Page(), Browser()
    task = page.open(browser)
    for _ in range(100):
        page.change()
        await asyncio.sleep(0.01)
    await browser.sees("<p>100</p>")
    assert 2 <= browser.text.count("data:") <= 100 * 0.02 / module.APART_S + 3
    await page.watch.close()
    await ends(task)


async def test_pages_rest_together_so_that_many_cost_no_more_than_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rests: list[float] = []

    async def rest(self: Watcher, for_s: float) -> None:
        rests.append(for_s)

    clock = count(0.0, 0.5)  # so making a message takes half a second
    monkeypatch.setattr(module, "monotonic", lambda: next(clock))
    monkeypatch.setattr(Watcher, "rest", rest)
    page, browser = Page(), Browser()
    others = [page.watch.begin(0) for _ in range(3)]
    page.change()
    task = page.open(browser)
    await browser.sees("<p>1</p>")
    for other in others:
        page.watch.end(other)
    page.change()
    await browser.sees("<p>2</p>")
    await page.watch.close()
    await ends(task)
    assert rests[:2] == [module.COST * 0.5 * 4, module.COST * 0.5]


async def test_a_page_of_what_no_partition_shows_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    page, browser = Page(), Browser()
    answer = Live(page.watch, None, page.updates, refresh_s=0.01)
    task = asyncio.create_task(answer(SCOPE, browser.receive, browser.send))  # type: ignore[arg-type]
    await browser.sees(2 * module.STILL_HERE)
    page.number += 1
    await browser.sees("<p>1</p>")
    browser.gone.set()
    await ends(task)


async def test_the_last_message_ends_the_stream() -> None:
    page, browser = Page(), Browser()
    page.change()
    page.last = True
    await ends(page.open(browser))
    assert browser.text.endswith("data: <p>1</p>\n\nevent: close\ndata: \n\n")


async def test_a_run_that_is_gone_ends_the_stream() -> None:
    page, browser = Page(), Browser()
    page.error = WorkflowNotFound("there is no such run")
    await ends(page.open(browser))
    assert browser.text == f"{module.STILL_HERE}event: close\ndata: \n\n"


async def test_a_partition_that_is_read_again_is_waited_for() -> None:
    page, browser = Page(), Browser()
    page.error = Unavailable("partition 0 is being restored")
    task = page.open(browser)
    await browser.sees(module.STILL_HERE)
    page.error = None
    page.change()
    await browser.sees("<p>1</p>")
    await page.watch.close()
    await ends(task)


async def test_a_quiet_page_shows_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.02)
    page, browser = Page(), Browser()
    task = page.open(browser)
    await browser.sees(3 * module.STILL_HERE)
    assert page.asked == 1
    await page.watch.close()
    await ends(task)


async def test_a_quiet_page_of_a_busy_partition_shows_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(module, "APART_S", 0.001)
    page, browser = Page(), Browser()
    task = page.open(browser)
    async with asyncio.timeout(SOON_S):
        while module.STILL_HERE * 3 not in browser.text:
            page.positions[0] += 1  # of other runs
            await asyncio.sleep(0.001)
    assert page.asked > 5
    assert len(browser.text) < page.asked * len(module.STILL_HERE)
    await page.watch.close()
    await ends(task)


async def test_the_process_ends_during_a_rest_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APART_S", 60.0)
    page, browser = Page(), Browser()
    page.change()
    task = page.open(browser)
    await browser.sees("<p>1</p>")
    await page.watch.close()
    await ends(task)


async def test_a_browser_that_has_left_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "MAX_WATCHERS", 1)
    page, browser = Page(), Browser()
    task = page.open(browser)
    await browser.sees(module.STILL_HERE)
    with pytest.raises(Unavailable, match="limit"):
        page.open(Browser())
    browser.gone.set()
    await ends(task)
    page.watch.begin()
    await page.watch.close()


async def test_a_browser_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SEND_S", 0.05)
    monkeypatch.setattr(watch_module, "MAX_WATCHERS", 1)
    page, browser = Page(), Browser(takes=1)
    page.change()
    await ends(page.open(browser))
    assert "<p>" not in browser.text
    page.watch.begin()  # there is room again
    await page.watch.close()


def test_lines_of_a_text_stay_lines() -> None:
    assert event("a\r\nb\rc\n\u2028d", id="7") == "id: 7\ndata: a\ndata: b\ndata: c\ndata: \u2028d\n\n"
