"""Pages over stores that a test fills: asked over HTTP, read by a strict parser, and held against what is
true of every page.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from xml.etree.ElementTree import Element

import html5lib
import httpx
import pytest
from fastapi import FastAPI

from orchestrator.api.app import create_app
from orchestrator.api.backend import Backend
from orchestrator.api.embedded_overview import EmbeddedOverview
from orchestrator.api.pages.rendering import CSP
from orchestrator.api.reads import ThreadedReader
from orchestrator.codec import avro
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.embedded_aio import EmbeddedAioLog
from orchestrator.log.topics import DEAD_LETTERS, WORKERS
from orchestrator.protocol.tasks import Beat, DeadLetter
from tests.unit.view.shelf import Shelf

ADDRESS = "http://127.0.0.1:7350"

HOSTILE = (
    '<script>alert("1")</script>',
    "\"' onload='alert(1)' x=\"",
    "{{ 7 * 7 }}{% raw %}",
    "two\nlines\tand &amp; <!-- --> ]]>",
    "\u202etfel ot thgir\u202c \u05d0\u05d1",
    "../../etc/x?a=b#c%2F",
)
"""Names that somebody may give to a workflow, and that break pages which are made by hand."""

LINKS = ("href", "src", "action", "hx-get", "hx-post", "hx-sse:connect", "data-source")
"""Attributes that lead somewhere."""


class Page:
    """An answer that is HTML; ``tree`` is the whole of it, or the part that htmx asked for."""

    def __init__(self, answer: httpx.Response, *, whole: bool = True) -> None:
        self.answer, self.text, self.status = answer, answer.text, answer.status_code
        parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
        if whole:
            self.tree: Element = parser.parse(answer.text)
        else:
            self.tree = parser.parseFragment(answer.text)

    def all(self, path: str) -> list[Element]:
        """The elements that an XPath finds."""
        return self.tree.findall(f".//{path}")

    def one(self, path: str) -> Element:
        (found,) = self.all(path)
        return found

    def words(self, path: str) -> list[str]:
        """What stands in the elements that an XPath finds."""
        return [words(found) for found in self.all(path)]

    def table(self, path: str = "table") -> list[list[str]]:
        """The rows of a table's body."""
        return [[words(cell) for cell in row] for row in self.one(path).findall("tbody/tr")]

    def links(self) -> list[str]:
        return [found.attrib["href"] for found in self.all("a")]

    def link(self, said: str) -> str:
        """Where the link of these words leads."""
        (found,) = {one.attrib["href"] for one in self.all("a") if words(one) == said}
        return found


def words(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def query_of(link: str) -> str:
    """The query that a list is asked with by a link."""
    return parse_qs(urlsplit(link).query).get("q", [""])[0]


class Site:
    """The pages over a shelf of stores, and a log with beats and dead letters."""

    def __init__(
        self, app: FastAPI, shelf: Shelf, log: EmbeddedLog, http: httpx.AsyncClient, base_path: str
    ) -> None:
        self.app, self.shelf, self.http, self.base_path = app, shelf, http, base_path
        self._log = log

    async def get(self, path: str, *, status: int = 200, **headers: str) -> Page:
        """A page, which is as every page should be."""
        answer = await self.http.get(self.base_path + path, headers=headers)
        assert answer.status_code == status, answer.text
        page = Page(answer)
        wrong = list(faults(page, self.base_path))
        assert not wrong, f"{path}: {wrong}"
        return page

    async def part(self, path: str, *, status: int = 200) -> Page:
        """What htmx gets."""
        answer = await self.http.get(self.base_path + path, headers={"HX-Request": "true"})
        assert answer.status_code == status, answer.text
        return Page(answer, whole=False)

    def beat(self, beat: Beat) -> None:
        self._append(WORKERS, avro.encode(beat))

    def dead_letter(self, letter: DeadLetter) -> None:
        self._append(DEAD_LETTERS, avro.encode(letter))

    def _append(self, topic: str, value: bytes) -> None:
        member = self._log.member()
        member.appender(ordered=False).append(topic, 0, b"k", value)
        member.poll(0)
        member.close()


def faults(page: Page, base_path: str) -> Iterator[str]:
    """What is wrong with a page, whatever it shows."""
    if page.answer.headers["content-security-policy"] != CSP:
        yield "it has another policy"
    for element in page.tree.iter():
        if not isinstance(element.tag, str):
            continue  # a comment
        for name, value in element.attrib.items():
            if name.startswith("on") or name == "style":
                yield f"<{element.tag} {name}> would run or look as the policy forbids"
            if name in LINKS and not value.startswith((f"{base_path}/", "#")):
                yield f"{name}={value!r} leads elsewhere"
            if (
                name in ("aria-describedby", "aria-labelledby")
                and page.tree.find(f".//*[@id='{value}']") is None
            ):
                yield f"{name}={value!r} is not there"
        if element.tag == "style" or (
            element.tag == "script" and (element.text or "src" not in element.attrib)
        ):
            yield f"<{element.tag}> stands in the page"
        if element.tag == "input" and "aria-label" not in element.attrib and element.get("type") != "hidden":
            labelled = [one for one in page.all("label") if element in list(one.iter())]
            labelled += [one for one in page.all("label") if one.get("for", "?") == element.get("id")]
            if not labelled:
                yield f"the input {element.get('name')!r} has no label"
        if element.tag == "th" and "scope" not in element.attrib:
            yield f"the heading {words(element)!r} has no scope"
        if element.tag == "img" and "alt" not in element.attrib:
            yield "an image has no text"
    ids = re.findall(r'\sid="([^"]*)"', page.text)
    if len(ids) != len(set(ids)):
        yield f"ids are not unique: {sorted(one for one in set(ids) if ids.count(one) > 1)}"
    if len(page.all("h1")) != 1 or not words(page.one("title")):
        yield "it has not one heading and a title"


@asynccontextmanager
async def serving(folder: Path, base_path: str = "") -> AsyncIterator[Site]:
    """The pages of an empty log."""
    shelf = Shelf(folder / "stores")
    log = EmbeddedLog(folder / "log")
    aio = EmbeddedAioLog(log)
    overview = EmbeddedOverview(log, lambda: shelf.stores)
    backend = Backend(aio, ThreadedReader(shelf.reader), overview)
    app = create_app(backend, base_path=base_path)
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ADDRESS) as http:
            yield Site(app, shelf, log, http, base_path)
    finally:
        await backend.close()
        await aio.close()
        await asyncio.to_thread(log.close)
        shelf.close()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with serving(tmp_path) as site:
        yield site
