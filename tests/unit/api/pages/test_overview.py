"""The overview."""

from __future__ import annotations

from orchestrator.protocol import events as e
from orchestrator.protocol.tasks import CoordinatorBeat, DeadLetter, QueueBacklog
from orchestrator.protocol.values import Failure, FailureKind
from tests.unit.api.pages.kit import Site, query_of, words
from tests.unit.view.shelf import FAILED


async def test_counts_lead_to_the_runs_that_they_count(site: Site) -> None:
    for number in range(3):
        site.shelf.run(f"open-{number}")
        site.shelf.run(f"bad-{number}", (e.WorkflowFailed(failure=FAILED),), kind='Re"fund')
    page = await site.get("/")
    tiles = {words(tile): query_of(tile.attrib["href"]) for tile in page.all("a[@class='tile']")}
    assert tiles["3Running"] == 'ExecutionStatus = "Running"'
    assert tiles["0Blocked"] == 'ExecutionStatus = "Blocked"'
    (order, refund) = page.table("section[@aria-labelledby='types-title']//table")
    assert (order, refund) == (["Order", "3", "0"], ['Re"fund', "0", "3"])
    (cell,) = page.all("section[@aria-labelledby='types-title']//tr[2]//a")
    assert query_of(cell.attrib["href"]) == 'ExecutionStatus = "Failed" AND WorkflowType = "Re\\"fund"'
    assert len((await site.get(cell.attrib["href"])).all("a[@data-open]")) == 3


async def test_the_worst_failures_stand_on_it_and_the_rest_is_a_click_away(site: Site) -> None:
    for number in range(7):
        failure = Failure(kind=FailureKind.APPLICATION, message=f"{'x' * (number + 1)} broke")
        for run in range(number + 1):
            site.shelf.run(f"bad-{number}-{run}", (e.WorkflowFailed(failure=failure),))
    page = await site.get("/")
    rows = page.table("section[@aria-labelledby='failures-title']//table")
    assert [row[0] for row in rows] == ["7", "6", "5", "4", "3"]
    assert page.link("2 more groups") == "/failures"


async def test_what_waits_and_what_nobody_could_use_is_seen_at_once(site: Site) -> None:
    backlogs = (
        QueueBacklog(task_queue="gpu", waiting=7, oldest_time_ms=1_000),
        QueueBacklog(task_queue="calm", waiting=0, oldest_time_ms=0),
    )
    beat = CoordinatorBeat(
        coordinator="c", identity="c@host", number=1, partitions=(0, 1, 2), backlogs=backlogs
    )
    site.beat(beat)
    site.dead_letter(DeadLetter(topic="commands", partition=0, offset=1, reason="?"))
    page = await site.get("/")
    ((queue, waiting, _, workers, _, _),) = page.table("section[@aria-labelledby='queues-title']//table")
    assert (queue, waiting, workers) == ("gpu", "7", "none")
    facts = words(page.one("section[@aria-labelledby='cluster-title']//dl"))
    assert facts == "coordinatorc@host beats partitions 0-2 workernone dead letters1 behind the log0 records"
