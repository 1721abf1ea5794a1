"""Everything by keyboard."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Visit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="session"),
]


async def focused(page: Page) -> str:
    """What has the focus, in words."""
    return str(await page.evaluate("document.activeElement.textContent.trim()"))


async def test_a_list_is_walked_and_opened(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/workflows")
        ids = await page.locator("tr[id^=run-] a[data-open]").all_text_contents()
        assert len(ids) > 3
        walk = []
        for key in "jjjk":
            await page.keyboard.press(key)
            walk.append(await focused(page))
        assert walk == [ids[0], ids[1], ids[2], ids[1]]
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", level=1)).to_contain_text(ids[1])


async def test_the_search_is_one_key_away_and_keeps_the_others_out(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/workflows")
        asked = page.get_by_role("textbox", name="Query")
        await page.keyboard.press("/")
        await expect(asked).to_be_focused()
        await page.keyboard.type('j/k? = "x"')
        await expect(asked).to_have_value('j/k? = "x"')
        await page.keyboard.press("Escape")
        await expect(asked).not_to_be_focused()
        await page.keyboard.press("j")
        assert await focused(page) != ""


async def test_the_keys_are_listed(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/cluster")
        keys = page.get_by_role("dialog", name="Keys")
        await page.keyboard.press("?")
        await expect(keys).to_be_visible()
        await page.keyboard.press("Escape")
        await expect(keys).to_be_hidden()
        await page.get_by_role("button", name="Keys").click()
        await expect(keys).to_be_visible()
        await page.keyboard.press("Enter")  # its only button has the focus
        await expect(keys).to_be_hidden()


async def test_tab_begins_with_the_way_past_the_navigation(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/workflows")
        await page.keyboard.press("Tab")
        assert await focused(page) == "Skip to the content"
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none"
        await page.keyboard.press("Enter")
        await expect(page.locator("main")).to_be_focused()
