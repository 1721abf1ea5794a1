"""Looking for runs, and getting back to where one was."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, Response, expect

from tests.browser.conftest import Visit
from tests.browser.stage import (
    BLOCKED,
    DEFERRED,
    DONE,
    FAILED,
    RETRIED,
    REVIEWED,
    UNSERVED,
    Stage,
)
from tests.browser.visitor import HIDDEN, Visitor, turn

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="session"),
]


RUNS = "tr[id^=run-]"
MINUTES = "**/workflow-minutes"


async def test_from_the_overview_to_a_run_and_back(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/")
        await page.get_by_role("link", name="Failed").first.click()
        rows = page.locator(RUNS)
        await expect(page.get_by_role("heading", level=1)).to_contain_text("Workflows")
        await expect(rows.filter(has_text=FAILED)).to_be_visible()
        await expect(rows.filter(has_text=DEFERRED)).to_contain_text("compensation-deferred")
        await expect(rows.filter(has_text=DONE)).to_have_count(0)

        await page.get_by_role("link", name="MerchantOnboarding").click()
        await expect(rows).to_have_count(2)
        asked, narrowed = page.get_by_role("textbox", name="Query"), 'WorkflowType = "MerchantOnboarding"'
        await expect(asked).to_have_value(f'ExecutionStatus = "Failed" AND {narrowed}')

        await rows.get_by_role("link", name=FAILED).click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text(FAILED)
        await page.go_back()
        await expect(rows).to_have_count(2)
        await expect(asked).to_have_value(f'ExecutionStatus = "Failed" AND {narrowed}')
        await page.go_back()
        await expect(asked).to_have_value('ExecutionStatus = "Failed"')


async def test_a_query_that_is_none_is_kept_and_explained(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/workflows")
        asked = page.get_by_role("textbox", name="Query")
        await asked.fill("WorkflowTyp = 'Order'")
        visitor.expected.add("status of 422")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text("WorkflowTyp")
        await expect(asked).to_have_value("WorkflowTyp = 'Order'")
        await expect(asked).to_have_attribute("aria-invalid", "true")


async def test_a_run_is_found_by_the_beginning_of_its_id(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/cluster")
        await page.get_by_label("Workflow id, or its beginning").fill("o-1")
        await page.keyboard.press("Enter")
        rows = page.locator(RUNS)
        await expect(rows.filter(has_text=DONE)).to_be_visible()
        await expect(rows.filter(has_text=REVIEWED)).to_be_visible()
        await expect(rows).to_have_count(2)


async def test_what_is_stuck_says_why(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/stuck")
        row = page.locator("tbody tr")
        await expect(row.filter(has_text=BLOCKED)).to_contain_text("blocked")
        await expect(row.filter(has_text=RETRIED)).to_contain_text("no line to the carrier")
        await expect(row.filter(has_text=UNSERVED)).to_contain_text("warehouse-scales")


async def test_failures_that_are_alike_lead_to_their_runs(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/failures")
        group = page.locator("tbody tr").filter(has_text="sanctions hit")
        await group.get_by_role("link").first.click()
        await expect(page.locator(RUNS).filter(has_text=FAILED)).to_be_visible()


async def test_what_starts_and_ends_is_seen_at_once(stage: Stage, visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open('/workflows?q=WorkflowId STARTS_WITH "arrives"')
        await expect(page.get_by_text("No run matches.")).to_be_visible()
        await page.evaluate("window.notReloaded = true")
        talk = await stage.converse("arrives-1")
        await expect(page.locator(RUNS)).to_contain_text("Running")
        await talk.signal("stop")
        await expect(page.locator(RUNS)).to_contain_text("Completed")
        assert await page.evaluate("window.notReloaded"), "the page was loaded anew"


async def test_the_overview_counts_as_it_happens(stage: Stage, visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/")
        terminated = page.locator(".tile").filter(has_text="Terminated").locator("b")
        before = int(await terminated.inner_text())
        talk = await stage.converse("counted")
        await talk.terminate("to be counted")
        await expect(terminated).to_have_text(str(before + 1))


async def open_chart(visitor: Visitor, *, hidden: bool = False) -> Page:
    """The overview, which gets no updates but those that a test makes up."""
    visitor.expected |= {"net::ERR_", "htmx:error"}
    await visitor.page.route("**/live/**", lambda route: route.abort())
    if hidden:
        await visitor.page.add_init_script(HIDDEN)
    return await visitor.open("/")


async def test_the_chart_has_what_happens_soon_after_a_look(stage: Stage, visit: Visit) -> None:
    async with visit() as visitor:
        async with visitor.page.expect_response(MINUTES) as first:
            page = await open_chart(visitor)
        await expect(page.locator("#chart canvas")).to_be_visible()
        await expect(page.locator("#chart .u-legend")).to_contain_text("Started")
        await stage.converse("charted")
        async with page.expect_response(MINUTES) as second:
            await page.evaluate("document.dispatchEvent(new Event('htmx:after:swap'))")
        assert await started(await second.value) == await started(await first.value) + 1


async def test_a_chart_that_was_hidden_asks_when_it_is_seen(visit: Visit) -> None:
    async with visit() as visitor:
        page = await open_chart(visitor, hidden=True)
        async with page.expect_response(MINUTES) as asked:
            await turn(page, hidden=False)
        assert await started(await asked.value)
        await expect(page.locator("#chart canvas")).to_be_visible()


async def started(answer: Response) -> int:
    """How many runs the chart has."""
    return sum(one["started"] for one in (await answer.json())["minutes"])
