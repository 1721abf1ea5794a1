"""The page of a run, over stores that were filled turn by turn."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest

from orchestrator.api.pages import run as module
from orchestrator.api.pages.journal import PAGE_EVENTS
from orchestrator.api.pages.picture import MAX_ROWS
from orchestrator.protocol import events as e
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.values import Failure, FailureKind, Payload, RetryState
from orchestrator.protocol.views import History
from tests.unit.api.pages.kit import HOSTILE, Page, Site, serving, words
from tests.unit.view.shelf import FAILED, PARTITIONS

from .runs import scheduled


def place(workflow_id: str, run_id: str, *more: str) -> str:
    return "/".join(["/workflows", quote(workflow_id, safe=""), run_id, *more])


def facts(page: Page) -> dict[str, str]:
    listed = page.one("div[@id='run-summary']/dl[@class='facts']")
    cells = [words(cell) for cell in listed]
    return dict(zip(cells[::2], cells[1::2], strict=True))


def live_of(page: Page) -> str:
    """Where the page gets its updates; "" if it gets none."""
    return next(
        (one.attrib["hx-sse:connect"] for one in page.all("div") if "hx-sse:connect" in one.attrib), ""
    )


def events(page: Page) -> list[list[str]]:
    return page.table("div[@id='run-events']/div/table")


async def test_a_run_that_waits_shows_for_what(site: Site) -> None:
    backoff = e.ActivityAttemptFailed(activity_id=1, attempt=1, failure=FAILED, retry_time_ms=1_009_000)
    run_id = site.shelf.run(
        "o/1",
        (scheduled(1, worker="w" * 32), scheduled(2, "ship", worker="v" * 32), scheduled(3, "mail")),
        (backoff, e.TimerStarted(timer_id=4, fire_time_ms=99_000, summary="wait for funds")),
    )
    page = await site.get(place("o/1", run_id))
    assert words(page.one("h1")) == "o/1 Running"
    found = facts(page)
    assert (found["Type"], found["Run"]) == ("Order", run_id)
    assert found["History"] == "6 events in 3 turns · download"
    pending, timers = page.all("div[@id='run-open']/div/table")
    rows = [[words(cell) for cell in row] for row in pending.findall("tbody/tr")]
    assert [row[:3] for row in rows] == [
        ["charge #1", "backoff", "2/∞"],
        ["ship #2", "running", "1/∞"],
        ["mail #3", "waiting", "1/∞"],
    ]
    assert rows[0][4].startswith("next ")
    assert rows[0][7] == "sanctions hit activity: activity 'check' failed application: sanctions hit"
    assert (rows[1][6], rows[1][4].startswith("since ")) == ("v" * 8, True)
    assert words(timers).startswith("TimerFires wait for funds")
    assert [words(one) for one in page.all("p[@id='run-actions']/a")] == [
        "Signal…",
        "Query…",
        "Cancel…",
        "Terminate…",
        "Where does the code wait?",
    ]


async def test_a_run_with_nothing_open_says_that_it_waits_in_its_code(site: Site) -> None:
    page = await site.get(place("waits", site.shelf.run("waits")))
    assert page.words("div[@id='run-open']/p")[0].startswith("No activity and no timer is open")
    timer = e.TimerStarted(timer_id=1, fire_time_ms=99_000)
    for name, event in (("timer", timer), ("closed", e.WorkflowCompleted())):
        page = await site.get(place(name, site.shelf.run(name, (event,))))
        assert page.words("div[@id='run-open']/p") == []


async def test_a_failed_run_says_why_down_to_the_root_with_its_lines(site: Site) -> None:
    root = Failure(
        kind=FailureKind.APPLICATION,
        type="Gateway",
        message="first line\nsecond line",
        stack='File "a.py"\n  pay()',
        details=(Payload(data=b'{"code":504}'),),
    )
    failure = Failure(kind=FailureKind.ACTIVITY, message="activity 'charge' failed", cause=root)
    run_id = site.shelf.run("w", (e.WorkflowFailed(failure=failure),))
    page = await site.get(place("w", run_id))
    first, second = page.all("div[@id='run-summary']/ol/li")
    assert words(first) == "activity: activity 'charge' failed"
    assert "".join(second.find("p").itertext()) == "Gateway: first line\nsecond line"
    assert [pre.text for pre in second.findall(".//pre")] == [
        '{\n  "code": 504\n}',
        'File "a.py"\n  pay()',
    ]
    assert page.words("p[@id='run-actions']/a") == ["Query…"], "its code waits nowhere"
    assert live_of(page) == ""


@pytest.mark.parametrize(
    ("turn", "words_of_it"),
    [
        ((), "Where does the code wait?"),
        ((e.WorkflowBlocked(reason="bug", failure=FAILED),), "Where does the code wait?"),
        ((e.WorkflowTerminated(),), "Where did the code wait?"),
        ((e.WorkflowTimedOut(failure=FAILED),), "Where did the code wait?"),
        ((e.WorkflowCompleted(),), ""),
        ((e.WorkflowFailed(failure=FAILED),), ""),
    ],
)
async def test_where_the_code_waits_is_asked_where_it_does(
    site: Site, turn: tuple[e.Event, ...], words_of_it: str
) -> None:
    page = await site.get(place("w", site.shelf.run("w", turn)))
    found = [one for one in page.words("p[@id='run-actions']/a") if one.startswith("Where")]
    assert found == [words_of_it] * bool(words_of_it)


async def test_input_and_result_are_shown_as_what_they_are(site: Site) -> None:
    run_id = site.shelf.run("w", (e.WorkflowCompleted(result=Payload(data=b'{"paid":true}')),))
    page = await site.get(place("w", run_id))
    assert page.words("section[@aria-labelledby='input-title']/pre") == ["1"]
    assert page.one("section[@aria-labelledby='result-title']/pre").text == '{\n  "paid": true\n}'
    raw = Payload(data=bytes(range(256)), encoding="binary/plain")
    run_id = site.shelf.run("raw", (e.WorkflowCompleted(result=raw),))
    page = await site.get(place("raw", run_id))
    assert page.one("section[@aria-labelledby='result-title']/pre").text.startswith("0001 0203")


async def test_a_blocked_run_says_what_blocks_it(site: Site) -> None:
    run_id = site.shelf.run("w", (e.WorkflowBlocked(reason="bug", failure=FAILED),))
    page = await site.get(place("w", run_id))
    assert words(page.one("h1")) == "w Blocked"
    assert "The code cannot go on" in words(page.one("div[@id='run-summary']/p[@class='notice']"))
    assert words(page.all("div[@id='run-summary']/ol/li")[-1]) == "application: sanctions hit"


async def test_earlier_and_later_runs_of_the_id_are_one_click_away(site: Site) -> None:
    runs = [site.shelf.run("w", (e.WorkflowCompleted(),)) for _ in range(2)] + [site.shelf.run("w")]
    page = await site.get(place("w", runs[1]))
    assert page.link("earlier run") == place("w", runs[0])
    assert page.link("later run") == place("w", runs[2])
    assert "Same id" not in facts(await site.get(place("x", site.shelf.run("x"))))
    later = facts(await site.get(place("w", runs[0])))["Same id"]
    assert later == "later run Completed · latest run Running · all runs"
    latest = await site.http.get("/workflows/w")
    assert (latest.status_code, latest.headers["location"]) == (303, place("w", runs[2]))


async def test_a_run_with_many_later_ones_keeps_its_relations(site: Site) -> None:
    runs = [site.shelf.run("w", (e.WorkflowCompleted(),)) for _ in range(module.MAX_LATER + 3)]
    page = await site.get(place("w", runs[1]))
    assert facts(page)["Same id"] == "earlier run Completed · latest run Completed · all runs"
    assert page.link("earlier run") == place("w", runs[0])
    assert page.link("latest run") == place("w", runs[-1])
    page = await site.get(place("w", runs[2]))
    assert (page.link("later run"), page.link("latest run")) == (place("w", runs[3]), place("w", runs[-1]))


async def test_runs_that_began_in_the_same_millisecond_have_an_order(site: Site) -> None:
    runs = [site.shelf.run("w", (e.WorkflowCompleted(),), start_ms=7) for _ in range(3)]
    first, middle, last = sorted(runs)  # as lists have them
    page = await site.get(place("w", middle))
    assert (page.link("later run"), page.link("earlier run")) == (place("w", first), place("w", last))


async def test_events_are_paged_from_either_end(site: Site) -> None:
    signals = [(e.WorkflowSignaled(signal_name=f"s{n}"),) for n in range(2 * PAGE_EVENTS)]
    run_id = site.shelf.run("w", *signals)
    for order in ("newest", "oldest"):
        seen, link = [], place("w", run_id) + f"?order={order}"
        while link:
            page = await site.get(link)
            seen += [int(row[0]) for row in events(page)]
            link = (page.all("a[@rel='next']") or [{}])[0].get("href", "").partition("#")[0]
        expected = range(1, 2 * PAGE_EVENTS + 2)
        assert seen == list(reversed(expected) if order == "newest" else expected)
    assert page.link("First events").startswith(place("w", run_id))


async def test_events_are_narrowed_to_failures(site: Site) -> None:
    gave_up = e.ActivityFailed(activity_id=1, failure=FAILED, retry_state=RetryState.NON_RETRYABLE_FAILURE)
    run_id = site.shelf.run("w", (scheduled(1, worker="w"),), (gave_up,))
    page = await site.get(place("w", run_id))
    page = await site.get(page.link("failures").partition("#")[0])
    assert [row[:2] + row[3:] for row in events(page)] == [
        [
            "3",
            "3",
            "ActivityFailed",
            "charge #1 · sanctions hit activity_id1failureactivity 'check' failed caused by "
            "sanctions hitretry_statenon-retryable-failure",
            f"history-{partition_of('w', PARTITIONS)} @ 2",
        ]
    ]
    none = await site.get(place("w", run_id) + "?show=timers")
    assert words(none.one("div[@id='run-events']/p[@class='empty']")) == "There are no such events."


async def test_the_timeline_is_drawn_and_told(site: Site) -> None:
    run_id = site.shelf.run(
        "w",
        (scheduled(1, worker="w"), scheduled(2, "ship", worker="w")),
        (e.ActivityAttemptFailed(activity_id=1, attempt=1, failure=FAILED, retry_time_ms=0),),
        (e.WorkflowSignaled(signal_name="approve"),),
        (e.ActivityCompleted(activity_id=2), e.WorkflowCompleted()),
    )
    page = await site.get(place("w", run_id))
    svg = page.one("{*}svg")
    assert [words(title) for title in svg.findall("{*}g/{*}title")] == [
        "Order: done, 0.004 s",
        "charge #1: ended with the run, 0.003 s",
        "ship #2: done, 0.003 s",
        "approve",
    ]
    assert [words(title) for title in svg.findall("{*}g/{*}rect/{*}title")] == [
        "charge, attempt 1: failed: sanctions hit",
        "ship, attempt 1: done",
    ]
    for shape in [*svg.iter("{*}rect"), *svg.iter("{*}circle")]:
        for name in ("x", "width", "cx"):
            assert 0 <= float(shape.get(name, "0").rstrip("%")) <= 100
    told = page.table("details[@class='as-table']//table")
    assert [row[:2] + row[3:] for row in told] == [
        ["run", "Order", "0.004 s", "", "done"],
        ["activity", "charge #1", "0.003 s", "1", "ended with the run"],
        ["activity", "ship #2", "0.003 s", "1", "done"],
        ["signal", "approve", "", "", ""],
    ]


async def test_twenty_thousand_events_are_a_page_of_bounded_size(site: Site) -> None:
    scheduled_ones = [(scheduled(number, worker="w"),) for number in range(1, 12_500)]
    completed_ones = [(e.ActivityCompleted(activity_id=number),) for number in range(1, 7_501)]
    run_id = site.shelf.run("w", *scheduled_ones, *completed_ones)
    page = await site.get(place("w", run_id))
    assert len(events(page)) == PAGE_EVENTS
    assert len(page.all("{*}svg/{*}g")) <= MAX_ROWS + 10
    assert len(page.all("div[@id='run-open']//tbody/tr")) == module.MAX_PENDING_SHOWN
    assert "and 4,899 others" in page.words("p[@class='muted']")
    assert len(page.text) < 600_000
    assert facts(page)["History"].startswith("20,000 events in 20,000 turns")


@pytest.mark.parametrize("name", HOSTILE)
async def test_names_and_payloads_are_text_whatever_they_hold(site: Site, name: str) -> None:
    payload = Payload(data=msgspec.json.encode({name: name}))
    failure = Failure(kind=FailureKind.APPLICATION, type=name, message=name, stack=name, details=(payload,))
    run_id = site.shelf.run(
        name,
        (
            e.ActivityScheduled(
                activity_id=1, activity_type=name, task_queue=name, input=(payload,), worker="w"
            ),
            e.TimerStarted(timer_id=2, fire_time_ms=1, summary=name),
            e.WorkflowSignaled(signal_name=name, input=(payload,)),
        ),
        (e.ActivityAttemptFailed(activity_id=1, attempt=1, failure=failure, retry_time_ms=0),),
        (e.WorkflowBlocked(reason=name, failure=failure),),
        kind=name,
    )
    page = await site.get(place(name, run_id))
    assert page.one("h1/span").text == name
    assert facts(page)["Type"] == " ".join(name.split())
    shapes = {one.tag.partition("}")[2] for one in page.one("{*}svg").iter()}
    assert shapes == {"svg", "g", "title", "rect", "text", "circle"}
    assert not [one for one in page.all("script") if one.text]
    bold = page.one("div[@id='run-summary']/ol/li/p/b")
    assert bold.text == name


async def test_long_values_are_folded(site: Site) -> None:
    long = Payload(data=msgspec.json.encode("x" * 250_000))
    run_id = site.shelf.run("w", (e.WorkflowCompleted(result=long),))
    page = await site.get(place("w", run_id))
    folded = page.one("section[@aria-labelledby='result-title']/details")
    assert words(folded.find("summary")).endswith("250,000 characters")
    assert len(folded.find("pre").text) == 250_000
    assert len(page.text) < 300_000


async def test_the_download_is_the_export_that_replays_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DOWNLOAD_TURNS", 3)
    run_id = site.shelf.run("w", *((e.WorkflowSignaled(signal_name=str(n)),) for n in range(10)))
    answer = await site.http.get(place("w", run_id, "history.json"))
    assert answer.headers["content-disposition"] == f'attachment; filename="history-{run_id}.json"'
    exported = msgspec.json.decode(answer.content, type=History)
    assert exported == site.shelf.reader.history("w", run_id)
    missing = await site.http.get(place("w", "f" * 32, "history.json"))
    assert missing.status_code == 404


@pytest.mark.parametrize("path", ["", "/live", "/stack", "/do/cancel"])
async def test_runs_that_are_not_there_have_a_page_that_says_so(site: Site, path: str) -> None:
    site.shelf.run("w")
    if path != "/stack":  # an engine answers that one
        page = await site.get(place("w", "f" * 32) + path, status=404)
        assert "there is no run" in words(page.one("p[@class='problem']"))
    await site.get("/workflows/nobody", status=404)


async def test_a_partition_that_is_not_there_yet_is_a_page_that_asks_again(site: Site) -> None:
    run_id = site.shelf.run("w")
    stores = list(site.shelf.stores)
    site.shelf.stores[:] = [None] * PARTITIONS
    page = await site.get(place("w", run_id), status=503)
    site.shelf.stores[:] = stores
    assert "is being restored" in words(page.one("p[@class='problem']"))
    assert page.answer.headers["refresh"]


@pytest.mark.parametrize(
    "query",
    [
        "at=nonsense",
        f"order=oldest&at={10**20}.1",
        f"at=1.{'9' * 5_000}",
        "order=sideways",
        "show=bogus",
        "turn=-1",
        f"turn={10**20}",
    ],
)
async def test_an_address_that_means_nothing_is_refused_in_words(site: Site, query: str) -> None:
    run_id = site.shelf.run("w")
    path = place("w", run_id) + ("/live" if query.startswith("turn") else "")
    await site.get(f"{path}?{query}", status=422)


@pytest.mark.parametrize("last", ["9" * 20, "9" * 5_000, "-1", "x"])
async def test_a_number_that_no_message_has_is_passed_over(site: Site, last: str) -> None:
    run_id = site.shelf.run("w", (e.WorkflowCompleted(),))
    answer = await site.http.get(place("w", run_id, "live"), headers={"Last-Event-ID": last})
    assert "run-summary" in answer.text
    assert answer.text.endswith("event: close\ndata: \n\n")


async def test_it_works_below_a_path(tmp_path: Path) -> None:
    async with serving(tmp_path, "/below/it") as site:
        run_id = site.shelf.run("o/1")
        page = await site.get(place("o/1", run_id))
        assert live_of(page).startswith(f"/below/it{place('o/1', run_id)}/live?turn=1")
        latest = await site.http.get("/below/it/workflows/o%2F1")
        assert latest.headers["location"] == "/below/it" + place("o/1", run_id)
        form = await site.get(place("o/1", run_id, "do", "signal"))
        assert form.one("form[@method='post']").attrib["action"].startswith("/below/it/workflows/")


def parts(message: str) -> dict[str, str]:
    """What a message changes: HTML by the place it goes to."""
    found = re.findall(
        r'<hx-partial hx-target="#([\w-]+)" hx-swap="innerMorph">(.*?)</hx-partial>', message, re.S
    )
    return dict(found)
