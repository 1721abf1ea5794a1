"""One browser and one engine for all tests of this folder; a window of its own for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright, expect

from tests.browser.chromium import ARGUMENTS, NoBrowser, chromium
from tests.browser.stage import Stage
from tests.browser.visitor import WAIT_MS, Visitor

expect.set_options(timeout=WAIT_MS)

Visit = Callable[..., Visitor]


@pytest.fixture(scope="session")
def executable() -> str:
    """Chromium."""
    try:
        return chromium()
    except NoBrowser as error:
        pytest.skip(f"no browser: {error}")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(executable: str) -> AsyncIterator[Browser]:
    """The browser that all tests share."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """The engine that all tests share, with runs in known states."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    await stage.start()
    try:
        await stage.play()
        yield stage
    finally:
        await stage.stop()


@pytest.fixture
def visit(browser: Browser, stage: Stage) -> Visit:
    """Opens a window: ``async with visit(color_scheme="dark") as visitor``."""
    return partial(Visitor, browser, stage.address)
