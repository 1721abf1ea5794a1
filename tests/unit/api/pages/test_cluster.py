"""Queues, and the processes of a cluster."""

from __future__ import annotations

from orchestrator.api.pages.cluster import PAGE_LETTERS, owners
from orchestrator.protocol.tasks import CoordinatorBeat, DeadLetter, QueueBacklog, WorkerBeat
from orchestrator.protocol.views import CoordinatorSeen, ViewStatus
from orchestrator.view.queues import ALIVE_MS
from tests.unit.api.pages.kit import Site


def worker(name: str, *queues: str, **more: object) -> WorkerBeat:
    return WorkerBeat(  # type: ignore[arg-type]
        worker=name,
        identity=name,
        task_queues=queues,
        slots=3,
        running=1,
        inbox=0,
        inbox_offset=0,
        number=1,
        **more,
    )


def coordinator(name: str, *partitions: int, **backlog: int) -> CoordinatorBeat:
    found = tuple(
        QueueBacklog(task_queue=queue, waiting=count, oldest_time_ms=1_000)
        for queue, count in backlog.items()
    )
    return CoordinatorBeat(coordinator=name, identity=name, number=1, partitions=partitions, backlogs=found)


async def test_a_queue_shows_what_waits_and_who_serves_it(site: Site) -> None:
    site.beat(coordinator("c1", 0, cpu=2, gpu=7))
    site.beat(coordinator("c2", 1, cpu=1))
    site.beat(worker("w1", "cpu"))
    site.beat(worker("w2", "cpu", "mail"))
    rows = [(row[0], row[1], row[3], row[4], row[5]) for row in (await site.get("/queues")).table()]
    assert rows == [("cpu", "3", "2", "2", "6"), ("gpu", "7", "none", "0", "0"), ("mail", "0", "1", "1", "3")]


async def test_the_cluster_shows_owners_and_partitions_without_one(site: Site) -> None:
    site.beat(coordinator("c1", 0, 2))
    site.beat(worker("w1", "cpu", draining=True))
    page = await site.get("/cluster")
    assert page.table("section[@aria-labelledby='coordinators-title']//table")[0][:3] == [
        "beats",
        "c1",
        "0, 2",
    ]
    assert page.table("section[@aria-labelledby='workers-title']//table")[0][:3] == ["draining", "w1", "cpu"]
    found = page.table("section[@aria-labelledby='partitions-title']//table")
    assert [row[:3] for row in found] == [["0", "yes", "c1"], ["1", "yes", "nobody"], ["2", "yes", "c1"]]


def test_who_is_silent_owns_nothing() -> None:
    seen = [
        CoordinatorSeen(beat=coordinator("dead", 0, 1), silent_ms=ALIVE_MS + 1),
        CoordinatorSeen(beat=coordinator("alive", 1, 2), silent_ms=1_000),
    ]
    assert owners(ViewStatus(partitions=(), coordinators=tuple(seen))) == {1: "alive", 2: "alive"}


async def test_dead_letters_are_paged_and_their_bytes_are_text(site: Site) -> None:
    for number in range(PAGE_LETTERS + 1):
        value = b"<b>text</b>" if number % 2 else bytes(range(250, 256))
        site.dead_letter(
            DeadLetter(topic="commands", partition=3, offset=number, reason="unreadable", value=value)
        )
    page = await site.get("/cluster")
    assert page.words("pre")[:2] == ["fafb fcfd feff", "<b>text</b>"]
    assert len(page.all("pre")) == PAGE_LETTERS
    older = await site.get(page.link("Older").split("#")[0])
    assert len(older.all("pre")) == 1
    assert older.link("Newest") == "/cluster#dead-letters"
