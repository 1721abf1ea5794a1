"""The page of a run: it follows what happens, and does something to the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser.conftest import Visit
from tests.browser.stage import DEFERRED, HOSTILE, REVIEWED, Stage, address_of
from tests.browser.visitor import Visitor

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="session"),
]


async def open_run(stage: Stage, visitor: Visitor, workflow_id: str) -> Page:
    """Go to the page of the id's latest run."""
    return await visitor.open(await address_of(stage.client, workflow_id))


def signals(page: Page) -> Locator:
    """The rows of events that are signals."""
    return page.locator("#run-events tr[id^=event-]").filter(has_text="WorkflowSignaled")


def status(page: Page, word: str) -> Locator:
    """The run's status, beside its id."""
    return page.get_by_role("heading", level=1).get_by_text(word, exact=True)


async def test_a_failure_says_why_and_what_was_undone(stage: Stage, visit: Visit) -> None:
    async with visit() as visitor:
        page = await open_run(stage, visitor, DEFERRED)
        await expect(status(page, "Failed")).to_be_visible()
        await expect(page.locator("#run-summary .problem").last).to_contain_text("risk score 97 is above 80")
        await expect(page.locator("#run-summary")).to_contain_text("compensation-deferred")
        names = page.locator("svg.timeline text.name")
        await expect(names.filter(has_text="score_risk")).to_have_count(1)
        await expect(names.filter(has_text="remove_merchant")).to_have_count(1)
        await expect(page.get_by_role("link", name="Cancel…")).to_have_count(0)


async def test_what_happens_is_seen_at_once(stage: Stage, visit: Visit) -> None:
    talk = await stage.converse("seen at once")
    async with visit() as visitor:
        page = await open_run(stage, visitor, talk.id)
        await page.evaluate("window.notReloaded = true")
        await talk.signal("say", HOSTILE)
        await expect(signals(page)).to_have_count(1)
        await page.locator("#run-events summary").first.click()
        await expect(page.locator("#run-events")).to_contain_text(HOSTILE)
        await talk.signal("stop")
        await expect(status(page, "Completed")).to_be_visible()
        await expect(page.get_by_role("heading", name="Result")).to_be_visible()
        await expect(page.get_by_role("link", name="Terminate…")).to_have_count(0)
        await expect(page.get_by_role("link", name="Query…")).to_be_visible()
        await expect(page).to_have_title(f"{talk.id} (Completed) · orchestrator")
        assert await page.evaluate("window.notReloaded"), "the page was loaded anew"
        assert await page.title() != "1", "the code in a payload ran"


async def test_updates_come_however_late_a_script_is(stage: Stage, visit: Visit) -> None:
    talk = await stage.converse("late script")
    async with visit() as visitor:

        async def late(route: Route) -> None:
            await visitor.page.wait_for_function(
                "window.htmx && new Promise((done) => setTimeout(() => setTimeout(() => done(true))))"
            )
            await route.continue_()

        await visitor.page.route("**/hx-sse*", late)
        page = await open_run(stage, visitor, talk.id)
        await expect(page.locator("[data-connection]")).to_have_text("live")
        await talk.signal("say", "to a late one")
        await expect(signals(page)).to_have_count(1)


async def test_updates_go_on_when_the_engine_is_back(stage: Stage, visit: Visit) -> None:
    talk = await stage.converse("goes on")
    async with visit() as visitor:
        page = await open_run(stage, visitor, talk.id)
        await page.evaluate("window.notReloaded = true")
        connection = page.locator("[data-connection]")
        await expect(connection).to_have_text("live")
        most_ms = await page.evaluate(
            "document.querySelector('[hx-trigger=seen]')._htmx.sse.config.reconnectMaxDelay"
        )
        assert most_ms <= 3_000, "whoever waits for it does not want to wait for a minute more"
        visitor.expected |= {"net::ERR_", "htmx:sse:error"}
        await stage.stop()
        await expect(connection).to_have_text("not connected, trying again")
        await stage.start()
        await stage.client.get_workflow_handle(talk.id).signal("say", "I am back")
        await expect(signals(page)).to_have_count(1)
        await expect(connection).to_have_text("live")
        assert await page.evaluate("window.notReloaded"), "the page was loaded anew"


async def test_a_signal_and_a_query_from_the_page(stage: Stage, visit: Visit) -> None:
    talk = await stage.converse("asked")
    async with visit() as visitor:
        page = await open_run(stage, visitor, talk.id)
        dialog = page.get_by_role("dialog")
        await page.get_by_role("link", name="Signal…").click()
        await dialog.get_by_label("Name").fill("say")
        await dialog.get_by_label("Arguments").fill('[{"from": "the page"}]')
        await dialog.get_by_role("button", name="Signal").dblclick()
        await expect(page.get_by_text("The signal was accepted.")).to_be_visible()
        await expect(signals(page)).to_have_count(1)
        await expect(page).to_have_url(visitor.address + await address_of(stage.client, talk.id))

        await page.get_by_role("link", name="Query…").click()
        await dialog.get_by_label("Name").fill("said")
        await dialog.get_by_role("button", name="Query").click()
        await expect(dialog.get_by_role("status")).to_contain_text('"from": "the page"')
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        assert await talk.query("said") == ["hello", {"from": "the page"}]


async def test_what_the_engine_refuses_is_said_where_it_was_asked(stage: Stage, visit: Visit) -> None:
    talk = await stage.converse("refused")
    async with visit() as visitor:
        page = await open_run(stage, visitor, talk.id)
        await page.get_by_role("link", name="Signal…").click()
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("Name").fill("shout")
        visitor.expected.add("status of 4")
        await dialog.get_by_role("button", name="Signal").click()
        await expect(page.get_by_role("alert")).to_contain_text("shout")
        await expect(page.get_by_label("Name")).to_have_value("shout")


async def test_an_engine_that_cannot_be_reached_is_said(stage: Stage, visit: Visit) -> None:
    async with visit() as visitor:
        page = await open_run(stage, visitor, DEFERRED)
        visitor.expected |= {"net::ERR_", "htmx:error"}
        dialog = page.get_by_role("dialog")
        await page.get_by_role("link", name="Query…").click()
        await dialog.get_by_label("Name").fill("said")
        await page.route("**/do/**", lambda route: route.abort())
        for _ in range(2):
            await dialog.get_by_role("button", name="Query").click()
            await expect(dialog.get_by_role("alert")).to_contain_text("cannot be reached")
        await expect(dialog.get_by_label("Name")).to_have_value("said")
        await dialog.get_by_role("button", name="Close").click()

        await page.get_by_role("link", name="Query…").click()
        await expect(dialog.get_by_role("alert")).to_contain_text("cannot be reached")
        await dialog.get_by_role("button", name="Close").click()
        await expect(dialog).to_be_hidden()
        await page.unroute_all()
        await page.get_by_role("link", name="Query…").click()
        await expect(dialog.get_by_label("Name")).to_be_visible()
        await expect(dialog.get_by_role("alert")).to_have_count(0)


@pytest.mark.parametrize(("title", "ends"), [("Cancel", "Canceled"), ("Terminate", "Terminated")])
async def test_a_run_is_ended_for_a_reason(stage: Stage, visit: Visit, title: str, ends: str) -> None:
    talk = await stage.converse(f"ended by {title}")
    async with visit() as visitor:
        page = await open_run(stage, visitor, talk.id)
        await page.get_by_role("link", name=f"{title}…").click()
        dialog = page.get_by_role("dialog")
        confirm = dialog.get_by_role("button", name=f"{title} the run")
        await confirm.click()
        await expect(confirm).to_be_visible()  # not without a reason
        await dialog.get_by_label("Reason").fill("seen enough")
        await confirm.click()
        await expect(status(page, ends)).to_be_visible()
        await expect(page.locator("#run-events")).to_contain_text("seen enough")


async def test_a_signal_without_javascript(stage: Stage, visit: Visit) -> None:
    talk = await stage.converse("without scripts")
    async with visit(javascript=False) as visitor:
        page = await open_run(stage, visitor, talk.id)
        await page.get_by_role("link", name="Signal…").click()
        await page.get_by_label("Name").fill("stop")
        await page.get_by_role("button", name="Signal").click()
        await expect(page.get_by_text("The signal was accepted.")).to_be_visible()
        await expect(signals(page)).to_have_count(1)


async def test_where_the_code_waits(stage: Stage, visit: Visit) -> None:
    async with visit() as visitor:
        page = await open_run(stage, visitor, REVIEWED)
        await page.get_by_role("link", name="Where does the code wait?").click()
        await expect(page.get_by_role("dialog").get_by_role("status")).to_contain_text("_manual_review")


async def test_the_history_is_a_file(stage: Stage, visit: Visit) -> None:
    async with visit() as visitor:
        page = await open_run(stage, visitor, REVIEWED)
        async with page.expect_download() as began:
            await page.get_by_role("link", name="download").click()
        assert _json(await (await began.value).path())["workflow_id"] == REVIEWED


def _json(file: Path) -> Any:
    return json.loads(file.read_text())
