"""What holds for every page: for who sees little, has no mouse, a small screen or no JavaScript."""

from __future__ import annotations

from typing import Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.stage import BLOCKED, DEFERRED, HOSTILE, RETRIED, REVIEWED, Stage, address_of

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),
    pytest.mark.asyncio(loop_scope="session"),
]

LISTS = ("/", "/workflows", "/failures", "/stuck", "/queues", "/cluster", "/docs")
RUNS = (REVIEWED, DEFERRED, RETRIED, BLOCKED, HOSTILE)
RULES = {
    "light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "dark": ["color-contrast", "link-in-text-block"],  # all that differs from light
}
SEEN = {"light": RUNS, "dark": (DEFERRED,)}
NARROW_PX = 320
"""What WCAG asks for: a phone, or a large screen at 400 %."""


async def pages_of(stage: Stage, *workflow_ids: str) -> list[str]:
    """All lists, and the pages of some runs."""
    return [*LISTS, *[await address_of(stage.client, workflow_id) for workflow_id in workflow_ids]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_everybody_can_use_it(stage: Stage, visit: Visit, scheme: Literal["light", "dark"]) -> None:
    async with visit(color_scheme=scheme) as visitor:
        for path in await pages_of(stage, *SEEN[scheme]):
            page = await visitor.open(path)
            options = {"runOnly": RULES[scheme], "resultTypes": ["violations"], "preload": False}
            found = (await Axe().run(page, options=options)).response["violations"]
            wrong = [
                f"{path}: {rule['help']}: {node['html']}\n{node['failureSummary']}"
                for rule in found
                for node in rule["nodes"]
            ]
            assert not wrong, "\n".join(wrong)


async def test_the_schemes_differ(visit: Visit) -> None:
    seen = []
    for scheme in ("light", "dark"):
        async with visit(color_scheme=scheme) as visitor:
            page = await visitor.open("/")
            seen.append(await page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
    assert seen[0] != seen[1]


async def test_a_narrow_screen_scrolls_one_way(stage: Stage, visit: Visit) -> None:
    async with visit(viewport={"width": NARROW_PX, "height": 640}) as visitor:
        for path in await pages_of(stage, *RUNS):
            page = await visitor.open(path)
            width = await page.evaluate("document.documentElement.scrollWidth")
            assert width <= NARROW_PX, f"{path} is {width} px wide: {await page.evaluate(WIDEST)}"


WIDEST = """[...document.querySelectorAll("body *")]
  .filter((element) => element.getBoundingClientRect().right > innerWidth && !element.closest(".scroll *"))
  .map((element) => element.outerHTML.slice(0, 120)).slice(0, 5).join("\\n")"""


async def test_a_hostile_name_is_only_text(stage: Stage, visit: Visit) -> None:
    async with visit() as visitor:
        for path in ("/", "/workflows", await address_of(stage.client, HOSTILE)):
            page = await visitor.open(path)
            assert await page.title() != "1", f"{path}: the code in a name ran"
            assert await page.locator("img[src=x]").count() == 0, path
        await visitor.open("/workflows")
        await expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()


async def test_all_is_there_without_javascript(stage: Stage, visit: Visit) -> None:
    async with visit(javascript=False) as visitor:
        for path in await pages_of(stage, REVIEWED):
            page = await visitor.open(path)
            await expect(page.get_by_role("heading", level=1)).to_be_visible()
            for name in ("Overview", "Workflows", "Failures", "Stuck", "Queues", "Cluster"):
                await expect(page.get_by_role("navigation").get_by_role("link", name=name)).to_be_visible()
