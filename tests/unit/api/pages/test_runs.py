"""The list of runs, and the filters that edit its query."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from orchestrator.api.pages import runs
from orchestrator.api.pages.runs import PAGE_ROWS
from orchestrator.api.reads import ThreadedReader
from orchestrator.protocol import events as e
from orchestrator.protocol.values import Failure, FailureKind
from orchestrator.view import lists
from tests.unit.api.pages.kit import HOSTILE, Site, query_of, words
from tests.unit.view.shelf import FAILED


def fill(site: Site, runs: int) -> None:
    for number in range(runs):
        site.shelf.run(f"order-{number}", kind="Order" if number % 3 else "Refund")


async def ids(site: Site, link: str) -> list[str]:
    return (await site.get(link)).words("a[@data-open]")


async def test_an_empty_list_says_how_to_start(site: Site) -> None:
    page = await site.get("/workflows")
    assert page.one("p[@class='empty']/code").text == "orchestrator workflow start TYPE --id ID"
    page = await site.get("/workflows?q=Attempt+%3E+3")
    assert words(page.one("p[@class='empty']")) == "No run matches. All workflows"


async def test_a_row_shows_what_the_command_line_shows_and_leads_to_its_run(site: Site) -> None:
    run_id = site.shelf.run("o/1", (e.WorkflowFailed(failure=FAILED),))
    page = await site.get("/workflows")
    ((status, kind, workflow_id, _, took, events, step, error),) = page.table("div[@id='list']//table")
    assert (status, kind, workflow_id, took, events, step) == ("Failed", "Order", "o/1", "0.001 s", "2", "")
    assert error == "sanctions hit alike"
    assert page.one("a[@data-open]").attrib["href"] == f"/workflows/o%2F1/{run_id}"
    assert query_of(page.link("alike")).startswith('FailureGroup = "')
    assert await ids(site, page.link("alike")) == ["o/1"]


async def test_chips_count_and_narrow_the_query_and_widen_it_again(site: Site) -> None:
    fill(site, 9)
    site.shelf.run("bad", (e.WorkflowFailed(failure=FAILED),))
    page = await site.get("/workflows")
    assert page.words("a[@class='chip']/b") == ["9", "1", "7", "3"]
    failed = await site.get(page.link("Failed 1"))
    assert query_of(page.link("Failed 1")) == 'ExecutionStatus = "Failed"'
    assert failed.words("a[@data-open]") == ["bad"]
    assert [words(chip) for chip in failed.all("a[@aria-current='true']")] == ["Failed 1"]
    # the other statuses are still counted, and take the place of this one
    assert query_of(failed.link("Running 9")) == 'ExecutionStatus = "Running"'
    assert query_of(failed.link("Failed 1")) == ""
    both = await site.get(failed.link("Order 1"))
    assert query_of(failed.link("Order 1")) == 'ExecutionStatus = "Failed" AND WorkflowType = "Order"'
    assert query_of(both.link('ExecutionStatus = "Failed" ×')) == 'WorkflowType = "Order"'
    recent = query_of(both.link("last 24 h"))
    assert recent.startswith('ExecutionStatus = "Failed" AND WorkflowType = "Order" AND StartTime >= "20')
    again = await site.get(f"/workflows?q={quote(recent)}")
    assert query_of(again.link("last 1 h")).count("StartTime") == 1


async def test_types_beyond_the_chips_are_counted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_TYPES", 1)
    fill(site, 9)
    page = await site.get("/workflows")
    assert page.link("Order 6")
    assert "and 1 more, of fewer runs" in words(page.one("*[@id='filters']"))


async def test_what_is_wrong_with_a_query_is_said_beside_it(site: Site) -> None:
    fill(site, 1)
    page = await site.get(f"/workflows?q={quote('Attempt > 3 AND <b> = 1')}", status=422)
    box = page.one("form[@class='query']/input")
    assert box.attrib["value"] == "Attempt > 3 AND <b> = 1"
    assert box.attrib["aria-invalid"] == "true"
    problem = page.one(f"*[@id='{box.attrib['aria-describedby']}']")
    assert "the query has < at column 17" in words(problem)
    assert (problem.find("pre").text or "").endswith("\n" + " " * 16 + "^")


async def test_older_runs_are_one_click_away_each(site: Site) -> None:
    fill(site, 2 * PAGE_ROWS + 1)
    seen, link = list[str](), "/workflows"
    for _ in range(3):
        page = await site.get(link)
        seen += page.words("a[@data-open]")
        link = (page.all("a[@rel='next']") or [{}])[0].get("href", "")
    assert seen == [f"order-{number}" for number in reversed(range(2 * PAGE_ROWS + 1))]
    assert link == ""
    assert page.link("Newest") == "/workflows"


async def test_a_list_that_gave_up_looking_says_so(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (lists, runs):
        monkeypatch.setattr(module, "MAX_ROWS_EXAMINED", 10)
    fill(site, 25)
    page = await site.get("/workflows?q=Attempt+%3E+3")
    assert words(page.one("p[@class='more']")) == "10 more runs were looked at, and none match. Go on"
    page = await site.get(page.link("Go on"))
    page = await site.get(page.link("Go on"))
    assert words(page.one("p[@class='empty']")) == "No run matches. All workflows"
    page = await site.get("/workflows?q=HistoryLength+%3D+1")
    assert words(page.one("p[@class='more']")) == "10 more runs were looked at, and only these match. Go on"
    assert page.link("Running 10+")


async def test_an_id_is_found_by_its_beginning(site: Site) -> None:
    fill(site, 12)
    answer = await site.http.get("/workflows", params={"find": " order-1 "})
    assert answer.status_code == 303
    found = await ids(site, answer.headers["location"])
    assert found == ["order-11", "order-10", "order-1"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_names_are_text_whatever_they_hold(site: Site, name: str) -> None:
    site.shelf.run(name, kind=name)
    page = await site.get("/workflows")
    row = page.one("div[@id='list']//tbody/tr")
    assert row.find(".//a").text == name
    assert row.find("td/span[@dir]").attrib["title"] == name
    (chip,) = [one for one in page.all("a[@class='chip']") if (one.find("span[@title]")) is not None]
    narrowed = await site.get(chip.attrib["href"])
    assert narrowed.one("a[@data-open]").text == name
    found = await site.http.get("/workflows", params={"find": name})
    assert (await site.get(found.headers["location"])).one("a[@data-open]").text == name


async def test_a_page_is_bounded_however_long_its_texts_are(site: Site) -> None:
    for number in range(PAGE_ROWS + 1):
        message = "x" * (250_000 if number == PAGE_ROWS else 1_000)
        failure = Failure(kind=FailureKind.APPLICATION, message=message)
        site.shelf.run(f"{number}" + "y" * 990, (e.WorkflowFailed(failure=failure),))
    page = await site.get("/workflows")
    assert len(page.all("a[@data-open]")) == PAGE_ROWS
    assert len(page.text) < PAGE_ROWS * 6_000


async def test_a_few_new_runs_come_on_top_and_a_flood_is_told(site: Site) -> None:
    newest = runs._Newest(ThreadedReader(site.shelf.reader), "")
    fill(site, 3)
    assert [row.workflow_id for row in (await newest.look())["found"].rows] == [
        "order-2",
        "order-1",
        "order-0",
    ]
    site.shelf.run("one-more")
    context = await newest.look()
    assert (context["found"].rows[0].workflow_id, context["new"]) == ("one-more", 0)
    for number in range(runs.MAX_NEW + 1):
        site.shelf.run(f"flood-{number}")
    context = await newest.look()
    assert (context["found"].rows[0].workflow_id, context["new"]) == ("one-more", runs.MAX_NEW + 1)
    assert context["filters"].statuses[0].runs == 4 + runs.MAX_NEW + 1, "counts go on"
    site.shelf.run("later")
    assert (await newest.look())["new"] == runs.MAX_NEW + 2


@pytest.mark.parametrize("q", ["", 'ExecutionStatus = "Running"'])
async def test_rows_that_stay_where_they_are_say_what_becomes_of_their_runs(site: Site, q: str) -> None:
    newest = runs._Newest(ThreadedReader(site.shelf.reader), q)
    ids = [site.shelf.run(f'"{number}"') for number in range(3)]
    await newest.look()
    for number in range(2 * PAGE_ROWS):
        site.shelf.run(f"flood-{number}")
    site.shelf.go_on(ids[1], (e.WorkflowCompleted(),))
    for _ in range(2):  # what was renewed once stays so
        rows = (await newest.look())["found"].rows
        assert [(row.run_id, row.status.value) for row in rows] == [
            (ids[2], "Running"),
            (ids[1], "Completed"),
            (ids[0], "Running"),
        ]
