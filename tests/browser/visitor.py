"""A person at a browser: opens pages, and notices whatever goes wrong in one."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page, Request

WAIT_MS = 20_000
"""Far above anything that works, on a machine that does much else."""

_WATCH = """
document.addEventListener("securitypolicyviolation",
  (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""

HIDDEN = """
window.isHidden = true;
Object.defineProperty(document, "hidden", {get: () => window.isHidden});
Object.defineProperty(document, "visibilityState", {get: () => window.isHidden ? "hidden" : "visible"});
"""
"""A browser that runs without a screen takes all its tabs for seen."""


class Visitor:
    """One window of a browser. At its end, whatever went wrong in it fails the test.

    Wrong are errors on the console, exceptions, what the security policy refused, dialogs that a page opens,
    and requests to another host.

    Args:
        browser: of any visitor.
        address: what is visited: the page's root, without a slash at its end.
        javascript: whether it is allowed.
        options: of a context of Playwright's.
    """

    def __init__(self, browser: Browser, address: str, *, javascript: bool = True, **options: Any) -> None:
        self.address = address
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.expected: set[str] = set()
        """What the console may say: some words of each message, such as "status of 422"."""
        self._browser = browser
        self._options = {"java_script_enabled": javascript, **options}
        self._context: BrowserContext

    async def __aenter__(self) -> Self:
        self._context = await self._browser.new_context(**self._options)
        self._context.set_default_timeout(WAIT_MS)
        if self._options["java_script_enabled"]:
            await self._context.add_init_script(_WATCH)
        self._context.on("request", self._on_request)
        self._context.on("console", self._on_console)
        self._context.on("weberror", lambda error: self.problems.append(f"exception: {error.error}"))
        self._context.on("dialog", self._on_dialog)
        self.page: Page = await self._context.new_page()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._context.close()
        if error is None:
            assert not self.problems, "\n".join(self.problems)
        elif self.problems:
            error.add_note("the page had problems:\n" + "\n".join(self.problems))

    async def open(self, path: str) -> Page:
        """Go to a path below the page's root; returns the page, which is whole."""
        answer = await self.page.goto(self.address + path)
        assert answer is not None
        assert answer.ok, f"{path}: {answer.status} {await answer.text()}"
        return self.page

    def _on_request(self, request: Request) -> None:
        self.requests.append(request.url)
        url = urlsplit(request.url)
        if url.scheme != "data" and f"{url.scheme}://{url.netloc}" != _site(self.address):
            self.problems.append(f"a request to another site: {request.url}")

    def _on_console(self, message: ConsoleMessage) -> None:
        excused = any(words in message.text for words in self.expected)
        if message.type in ("error", "warning") and not excused:
            self.problems.append(f"console: {message.type}: {message.text} at {message.location}")

    async def _on_dialog(self, dialog: Dialog) -> None:
        self.problems.append(f"a dialog: {dialog.message}")
        await dialog.dismiss()


def _site(address: str) -> str:
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc}"


async def turn(page: Page, *, hidden: bool) -> None:
    """Show a tab, or hide it."""
    await page.evaluate(f"isHidden = {str(hidden).lower()}")
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
