"""The page below a path, behind a proxy: no link, form, file or update leads beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from orchestrator import config
from orchestrator.demo.processes import free_port
from tests.browser.proxy import SubPathProxy
from tests.browser.stage import Stage
from tests.browser.visitor import Visitor

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="session"),
]

PATH = "/ops/orchestrator"


@pytest_asyncio.fixture(loop_scope="session")
async def served(tmp_path: Path) -> AsyncIterator[tuple[Stage, SubPathProxy, str]]:
    """An engine that knows its public address, and the proxy there."""
    port = free_port(0)
    address = f"http://{config.HOST}:{port}{PATH}"
    stage = Stage(tmp_path, "--public-url", address)
    await stage.start()
    try:
        async with SubPathProxy(port, stage.port, PATH) as proxy:
            yield stage, proxy, address
    finally:
        await stage.stop()


async def test_all_of_it_is_below_the_path(browser: Browser, served: tuple[Stage, SubPathProxy, str]) -> None:
    stage, proxy, address = served
    await stage.converse("below/a path")
    async with Visitor(browser, address) as visitor:
        page = await visitor.open("/")
        for name in ("Workflows", "Failures", "Stuck", "Queues", "Cluster", "Overview"):
            await page.get_by_role("navigation").get_by_role("link", name=name).click()
            await expect(page.get_by_role("heading", level=1)).to_contain_text(name)
        await page.get_by_label("Workflow id, or its beginning").fill("below/")
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name="below/a path").click()
        await expect(page.get_by_role("heading", level=1)).to_contain_text("below/a path")
    assert proxy.strays == []
    assert all(url.startswith(f"{address}/") for url in visitor.requests)
