"""Failure groups, and what is stuck."""

from __future__ import annotations

from orchestrator.protocol import events as e
from orchestrator.protocol.values import RetryPolicy
from tests.unit.api.pages.kit import Site, query_of, words
from tests.unit.view.shelf import FAILED, NOW_MS, ROOT


def waiting(site: Site, count: int, queue: str = "q") -> None:
    for number in range(count):
        scheduled = e.ActivityScheduled(activity_id=1, activity_type="charge", task_queue=queue)
        site.shelf.run(f"order-{number}", (scheduled,))


async def test_a_group_leads_to_its_runs_and_to_an_example(site: Site) -> None:
    site.shelf.run("a", (e.WorkflowFailed(failure=FAILED),))
    newest = site.shelf.run("b", (e.WorkflowFailed(failure=FAILED),))
    page = await site.get("/failures")
    ((runs, kind, _, error, _, _, example),) = page.table()
    assert (runs, kind, error, example) == ("2", "Order", "application: sanctions hit", "b")
    assert page.link("b") == f"/workflows/b/{newest}"
    assert query_of(page.link("2")).startswith("FailureGroup = ")
    assert (await site.get(page.link("2"))).words("a[@data-open]") == ["b", "a"]


async def test_a_stuck_activity_says_why_and_how_often_it_was_tried(site: Site) -> None:
    policy = RetryPolicy(maximum_attempts=9)
    scheduled = e.ActivityScheduled(
        activity_id=1, activity_type="charge", task_queue="q", worker="w", retry_policy=policy
    )
    failed = e.ActivityAttemptFailed(activity_id=1, attempt=1, failure=ROOT, retry_time_ms=NOW_MS + 60_000)
    site.shelf.run("a", (scheduled,), (failed,))
    page = await site.get("/stuck?attempts=2")
    ((why, _, workflow_id, step, queue, attempt, _, error),) = page.table()
    assert (why, workflow_id, step, queue, error) == ("retrying", "a", "charge", "q", "sanctions hit")
    assert attempt.startswith("2/9, next ")
    assert words((await site.get("/stuck?attempts=3")).one("p[@class='empty']")) == "Everything gets on."


async def test_the_thresholds_stand_in_the_form_and_in_all_links(site: Site) -> None:
    waiting(site, 250)
    link, seen = "/stuck?attempts=4&waiting_s=0.5", 0
    while link:
        page = await site.get(link)
        attempts, waiting_s = (box.attrib["value"] for box in page.all("form[@class='inline']//input"))
        assert (attempts, waiting_s) == ("4", "0.5")
        seen += len(page.table())
        link = next((one.attrib["href"] for one in page.all("a[@rel='next']")), "")
    assert seen == 250
    assert page.link("First page") == "/stuck?attempts=4&waiting_s=0.5"
