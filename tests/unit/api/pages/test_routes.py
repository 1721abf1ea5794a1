"""What is true of all pages: empty, hostile, not ready, below another path, asked for by htmx."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.api.pages.rendering import NAVIGATION, TEMPLATES
from orchestrator.protocol import events as e
from orchestrator.protocol.tasks import CoordinatorBeat, DeadLetter, QueueBacklog, WorkerBeat
from orchestrator.protocol.values import Failure, FailureKind
from tests.unit.api.pages.kit import ADDRESS, HOSTILE, Page, Site, serving, words

PATHS = [path for path, _ in NAVIGATION]


def fill(site: Site, name: str) -> None:
    """Something of every kind, under such a name."""
    failure = Failure(kind=FailureKind.APPLICATION, type=name, message="broke")
    scheduled = e.ActivityScheduled(activity_id=1, activity_type=name, task_queue=name)
    site.shelf.run(name, (e.WorkflowFailed(failure=failure),), kind=name)
    site.shelf.run(f"{name}-waits", (scheduled,), kind=name)
    site.shelf.run(f"{name}-blocked", (e.WorkflowBlocked(reason=name, failure=failure),), kind=name)
    site.beat(
        WorkerBeat(
            worker=name,
            identity=name,
            task_queues=(name,),
            slots=3,
            running=1,
            inbox=0,
            inbox_offset=0,
            number=1,
            activity_types=(name,),
            version=name,
        )
    )
    site.beat(
        CoordinatorBeat(
            coordinator=f"c-{name}",
            identity=name,
            number=1,
            partitions=(0, 1),
            workflow_types=(name,),
            backlogs=(QueueBacklog(task_queue=name, waiting=7, oldest_time_ms=1_000),),
            version=name,
        )
    )
    site.dead_letter(DeadLetter(topic=name, partition=0, offset=1, reason=name, value=b"<b>"))


@pytest.mark.parametrize("path", PATHS)
async def test_an_empty_page_says_that_it_is(site: Site, path: str) -> None:
    page = await site.get(path)
    assert page.words("p[@class='empty']")
    (current,) = page.all("nav//a[@aria-current='page']")
    assert current.attrib["href"] == path


@pytest.mark.parametrize("name", HOSTILE)
async def test_what_others_named_is_text_and_nothing_else(site: Site, tmp_path: Path, name: str) -> None:
    fill(site, name)
    async with serving(tmp_path / "plain") as other:
        fill(other, "plain")
        for path in PATHS:
            page, plain = await site.get(path), await other.get(path)
            assert [one.tag for one in page.tree.iter()] == [one.tag for one in plain.tree.iter()]
            for place in ("main", "title"):
                assert words(page.one(place)).count(" ".join(name.split())) == words(plain.one(place)).count(
                    "plain"
                )


@pytest.mark.parametrize("path", PATHS)
async def test_htmx_gets_the_part_that_it_puts_into_the_page(site: Site, path: str) -> None:
    fill(site, "plain")
    page, part = await site.get(path), await site.part(path)
    assert words(part.tree) == words(page.one("main"))
    assert part.answer.headers["vary"] == "HX-Request"
    again = await site.http.get(path, headers={"HX-Request": "true", "HX-History-Restore-Request": "true"})
    assert again.text.startswith("<!doctype html>")


@pytest.mark.parametrize("path", ["/", "/workflows", "/failures", "/stuck"])
async def test_a_reader_that_is_not_ready_says_so_and_the_page_asks_again(site: Site, path: str) -> None:
    store, site.shelf.stores[1] = site.shelf.stores[1], None
    page = await site.get(path, status=503)
    assert "partition 1 is being restored" in words(page.one("*[@role='alert']"))
    assert int(page.answer.headers["refresh"]) == int(page.answer.headers["retry-after"]) > 0
    site.shelf.stores[1] = store
    await site.get(path)


@pytest.mark.parametrize("path", ["/queues", "/cluster"])
async def test_who_works_is_known_before_a_partition_is_shown(site: Site, path: str) -> None:
    store, site.shelf.stores[1] = site.shelf.stores[1], None
    await site.get(path)
    site.shelf.stores[1] = store


@pytest.mark.parametrize("passed_on", [True, False], ids=["passed-on", "taken-away"])
async def test_below_another_path_every_link_leads_there(tmp_path: Path, passed_on: bool) -> None:
    async with serving(tmp_path, "/tools/engine") as site:
        fill(site, "plain")
        for path in PATHS:
            page = await site.get(path)  # which holds all links against the path
            if not passed_on:
                assert (await site.http.get(path)).text.split("<main")[0] == page.text.split("<main")[0]
        style = page.one("link[@rel='stylesheet']").attrib["href"]
        assert (await site.http.get(style)).status_code == 200
        found = await site.http.get("/tools/engine/workflows?find=plain")
        assert found.headers["location"].startswith("/tools/engine/workflows?q=")
        docs = await site.get("/docs")
        assert (await site.http.get(docs.link("openapi.json"))).status_code == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/stuck?attempts=0", 422),
        ("/stuck?page=x", 422),
        ("/workflows?page=x", 422),
        ("/cluster?page=YWJj", 422),
    ],
)
async def test_what_is_wrong_is_said_in_a_page(site: Site, path: str, status: int) -> None:
    page = await site.get(path, status=status)
    assert words(page.one("*[@role='alert']"))
    assert "refresh" not in page.answer.headers


@pytest.mark.parametrize("file", sorted(TEMPLATES.glob("*")), ids=lambda file: file.name)
def test_templates_escape_everything_and_hold_no_script_or_style(file: Path) -> None:
    text = file.read_text()
    for forbidden in (
        "|safe",
        "| safe",
        "autoescape",
        "Markup",
        "<style",
        " style=",
        " onclick",
        "hx-on",
        "js:",
    ):
        assert forbidden not in text
    assert 'href="/' not in text, "links go through link()"


async def test_a_page_that_there_is_not_is_one_that_says_so(site: Site) -> None:
    page = await site.get("/workflow<b>", status=404, Accept="text/html,*/*")
    assert words(page.one("*[@role='alert']")) == "GET /workflow%3Cb%3E: Not Found"
    for path, accept in (("/workflow", "*/*"), ("/api/v1/nothing", "text/html")):
        answer = await site.http.get(path, headers={"Accept": accept})
        assert (answer.status_code, answer.json()["error"]) == (404, "no-such-path")


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/failures/", "/failures"),
        ("/workflows/?q=Attempt+%3E+1", "/workflows?q=Attempt+%3E+1"),
        ("//evil.example/", "/evil.example"),
        ("/workflows/a%2F/", "/workflows/a%2F"),
    ],
)
@pytest.mark.parametrize("root", ["", "/tools/engine"])
async def test_a_slash_too_many_is_forgiven(tmp_path: Path, path: str, leads_to: str, root: str) -> None:
    async with serving(tmp_path, root) as site:
        answer = await site.http.get(f"{ADDRESS}{root}{path}", headers={"Accept": "text/html"})
        assert (answer.status_code, answer.headers["location"]) == (307, root + leads_to)


@pytest.mark.parametrize("path", [*PATHS, "/live/overview"])
async def test_a_page_may_be_asked_whether_it_is_there(site: Site, path: str) -> None:
    async with asyncio.timeout(10):
        answer = await site.http.head(path)
    assert answer.status_code == 200
    style = (await site.get("/queues")).one("link[@rel='stylesheet']").attrib["href"]
    assert (await site.http.head(style)).status_code == 200


async def test_a_path_that_begins_like_the_root_is_not_below_it(tmp_path: Path) -> None:
    async with serving(tmp_path, "/fail") as site:
        page = Page(await site.http.get("/failures"))  # as a proxy asks that takes the root away
        (current,) = page.all("nav//a[@aria-current='page']")
        assert current.attrib["href"] == "/fail/failures"
        page = await site.get("/failurez", status=404, Accept="text/html")
        assert words(page.one("*[@role='alert']")) == "GET /failurez: Not Found"
        answer = await site.http.get("/failurez", headers={"Accept": "text/html"})
        assert words(Page(answer).one("*[@role='alert']")) == "GET /failurez: Not Found"


async def test_the_form_of_what_is_stuck_is_not_sent_without_its_numbers(site: Site) -> None:
    page = await site.get("/stuck")
    fields = page.all("form[@class='inline']//input")
    assert len(fields) == 2
    assert all("required" in field.attrib for field in fields)
