"""Looking for runs, and getting back to where one was."""

from __future__ import annotations

import pytest
from playwright.async_api import Response, expect

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
    wait_until,
)
from tests.browser.visitor import HIDDEN, turn

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="session"),
]


RUNS = "tr[id^=run-]"


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


async def test_the_chart_has_what_happens_while_it_is_looked_at(stage: Stage, visit: Visit) -> None:
    asked: list[Response] = []

    async def started() -> int:
        minutes = (await asked[-1].json())["minutes"] if asked else []
        return sum(one["started"] for one in minutes)

    async with visit() as visitor:
        visitor.page.on("response", lambda one: asked.append(one) if "minutes" in one.url else None)
        page = await visitor.open("/")
        await expect(page.locator("#chart canvas")).to_be_visible()
        await expect(page.locator("#chart .u-legend")).to_contain_text("Started")
        before = await started()
        assert before
        await stage.converse("charted")

        async def has_it() -> bool:
            return await started() == before + 1

        await wait_until(has_it, "the chart to have a run that started")


async def test_a_chart_that_was_hidden_asks_when_it_is_seen(visit: Visit) -> None:
    async with visit() as visitor:
        await visitor.page.add_init_script(HIDDEN)
        page = await visitor.open("/")
        async with page.expect_response("**/workflow-minutes"):
            await turn(page, hidden=False)
        await expect(page.locator("#chart canvas")).to_be_visible()
