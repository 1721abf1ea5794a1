"""Many pages at a time: a browser has six connections to a host, and a page needs one for its updates."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Visit
from tests.browser.test_lists import RUNS
from tests.browser.visitor import HIDDEN, Visitor, turn

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="session"),
]

CONNECTIONS = 6


async def open_in_background(visitor: Visitor) -> Page:
    """A tab as a click with the middle button opens it."""
    page = await visitor.page.context.new_page()
    await page.add_init_script(HIDDEN)
    await page.goto(f"{visitor.address}/workflows")
    return page


async def test_tabs_that_nobody_has_seen_leave_room_for_others(visit: Visit) -> None:
    async with visit() as visitor:
        tabs = [await open_in_background(visitor) for _ in range(CONNECTIONS)]
        seventh = await visitor.open("/workflows")
        await expect(seventh.locator(RUNS).first).to_be_visible()
        await expect(seventh.locator("[data-connection]")).to_have_text("live")
        for tab in tabs:
            footer = tab.locator("[data-connection]")
            await expect(footer).to_have_text("")
            await turn(tab, hidden=False)
            await expect(footer).to_have_text("live")
            await turn(tab, hidden=True)


async def test_a_tab_that_is_hidden_while_it_connects_gives_the_connection_back(visit: Visit) -> None:
    async with visit() as visitor:
        for _ in range(CONNECTIONS):
            tab = await open_in_background(visitor)
            await tab.evaluate("document.addEventListener('htmx:before:request', () => { isHidden = true; })")
            await turn(tab, hidden=False)
            await expect(tab.locator("[data-connection]")).to_have_text("live")
        await visitor.open("/workflows")


async def test_a_tab_that_is_shown_during_an_outage_asks_again(visit: Visit) -> None:
    async with visit() as visitor:
        tab = await open_in_background(visitor)
        footer = tab.locator("[data-connection]")
        visitor.expected |= {"net::ERR_", "htmx:error"}
        await tab.route("**/live/**", lambda route: route.abort())
        await turn(tab, hidden=False)
        await expect(footer).to_have_text("not connected, trying again")
        await tab.unroute_all()
        await expect(footer).to_have_text("live")
