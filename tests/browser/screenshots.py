"""``make screenshots``: the pictures of docs/images, of an engine that runs the demo's input."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from playwright.async_api import Page, async_playwright

from tests.browser.chromium import ARGUMENTS, NoBrowser, chromium
from tests.browser.stage import DEFERRED, ROOT, Stage, address_of

FOLDER = ROOT / "docs" / "images"

MAX_BYTES = 150_000
"""A README is read on slow lines too."""

WIDTH_PX = 1_200
ENDS = {"overview": "#live > section:nth-of-type(2)", "run": "#run-ends"}
"""The last element that a picture has whole."""

MARGIN_PX = 4


async def take(page: Page, address: str, name: str) -> None:
    """Take one picture; raises SystemExit if it is too large."""
    await page.set_viewport_size({"width": WIDTH_PX, "height": WIDTH_PX})
    await page.goto(address, wait_until="load")
    end_px = await page.locator(ENDS[name]).evaluate("one => one.getBoundingClientRect().bottom + scrollY")
    await page.set_viewport_size({"width": WIDTH_PX, "height": round(end_px) + MARGIN_PX})
    picture = await page.screenshot(animations="disabled")
    if len(picture) > MAX_BYTES:
        raise SystemExit(f"{name}.png has {len(picture):,} bytes, more than {MAX_BYTES:,}: show less")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.png").write_bytes(picture)
    print(f"docs/images/{name}.png: {len(picture):,} bytes")


async def main() -> None:
    """Take all pictures."""
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder:
        stage = Stage(Path(folder))
        await stage.start()
        try:
            await stage.play_demo()
            await stage.play_trouble()
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=chromium(), args=ARGUMENTS)
                page = await browser.new_page(color_scheme="light", locale="en")
                await take(page, f"{stage.address}/", "overview")
                await take(page, stage.address + await address_of(stage.client, DEFERRED), "run")
                await browser.close()
        finally:
            await stage.stop()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except NoBrowser as error:
        sys.exit(f"no browser: {error}")
