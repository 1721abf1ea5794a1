"""Lists: looking for runs, and getting back to where one was."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.stage import DONE, FAILED

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="session"),
]


async def test_a_list_is_narrowed_and_back_brings_it_back(visit: Visit) -> None:
    async with visit() as visitor:
        page = await visitor.open("/workflows")
        rows = page.locator("tbody tr")
        await expect(rows.filter(has_text=DONE)).to_be_visible()
        everything = await rows.count()
        await page.get_by_role("link", name="Failed").first.click()
        await expect(rows.filter(has_text=FAILED)).to_be_visible()
        await expect(rows.filter(has_text=DONE)).to_have_count(0)
        assert "Failed" in page.url
        await page.go_back()
        await expect(rows).to_have_count(everything)
