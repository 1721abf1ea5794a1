from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from orchestrator.api.pages import journal as module
from orchestrator.api.pages.journal import SHOWN, Cursor, Journal, Shown, cursor_of, read_journal, what
from orchestrator.api.reads import ThreadedReader
from orchestrator.errors import UsageError, WorkflowNotFound
from orchestrator.protocol import events as e
from orchestrator.protocol.values import Payload, RetryPolicy
from orchestrator.protocol.views import History
from tests.unit.view.shelf import Shelf

from .runs import FAILED, dispatched, scheduled


class Counting(ThreadedReader):
    """Counts the turns that are read."""

    turns_read = 0

    async def history(self, *args: Any, **bounds: Any) -> History:
        found = await super().history(*args, **bounds)
        self.turns_read += len(found.turns)
        return found


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path)
    yield shelf
    shelf.close()


def signals(*numbers: int) -> tuple[e.Event, ...]:
    return tuple(e.WorkflowSignaled(signal_name=f"s{number}") for number in numbers)


async def whole(shelf: Shelf, **options: Any) -> list[list[int]]:
    """All pages of a run's events, by their ids."""
    pages, after = [], None
    reader = ThreadedReader(shelf.reader)
    while True:
        page: Journal = await read_journal(reader, "w", "", after=after, **options)
        pages.append([one.id for one in page.entries])
        if page.next is None:
            return pages
        after = page.next
        assert cursor_of(str(after)) == after


@pytest.mark.parametrize("chunk", [2, 3, 250])
@pytest.mark.parametrize("newest", [True, False])
@pytest.mark.parametrize("limit", [1, 4, 7, 100])
async def test_pages_are_all_events_once_in_either_order(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, chunk: int, newest: bool, limit: int
) -> None:
    monkeypatch.setattr(module, "CHUNK_TURNS", chunk)
    shelf.run("w", signals(1, 2, 3), signals(4), (), signals(5, 6, 7, 8, 9), (), (), signals(10))
    pages = await whole(shelf, newest=newest, limit=limit)
    ids = [number for page in pages for number in page]
    assert ids == (list(range(11, 0, -1)) if newest else list(range(1, 12)))
    assert all(len(page) == limit for page in pages[:-1])


async def test_a_list_is_narrowed_and_says_when_it_gives_up(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_EVENTS_EXAMINED", 10)
    shelf.run("w", (scheduled(1),), *(signals(number) for number in range(25)))
    reader = ThreadedReader(shelf.reader)
    page = await read_journal(reader, "w", "", shown="activities")
    assert (page.entries, page.gave_up) == ((), True)
    assert await whole(shelf, shown="activities") == [[], [], [2]]
    assert await whole(shelf, shown="timers", newest=False) == [[], [], []]


async def test_one_page_of_a_long_history_reads_a_bounded_part_of_it(shelf: Shelf) -> None:
    shelf.run("w", *(signals(number) for number in range(2_000)))
    reader = Counting(shelf.reader)
    for newest in (True, False):
        reader.turns_read = 0
        page = await read_journal(reader, "w", "", newest=newest)
        assert len(page.entries) == module.PAGE_EVENTS
        assert reader.turns_read == module.CHUNK_TURNS


async def test_an_entry_says_what_it_is_about_and_where_it_stands(shelf: Shelf) -> None:
    run_id = shelf.run(
        "w",
        (scheduled(7), e.TimerStarted(timer_id=8, fire_time_ms=86_400_000, summary="wait for funds")),
        (dispatched(7, attempt=2),),
    )
    reader = ThreadedReader(shelf.reader)
    page = await read_journal(reader, "w", run_id, newest=False, names={7: "charge"})
    assert [(one.id, one.turn, one.kind, one.what, one.offset) for one in page.entries] == [
        (1, 1, "WorkflowStarted", "Order", 0),
        (2, 2, "ActivityScheduled", "charge #7", 1),
        (3, 2, "TimerStarted", "timer #8 · wait for funds", 1),
        (4, 3, "ActivitiesDispatched", "charge #7", 2),
    ]
    assert dict(page.entries[2].fields)["fire_time"] == "1970-01-02 00:00:00.000Z"
    assert "attempt 2" in dict(page.entries[3].fields)["dispatches"]


async def test_unknown_runs_are_not_found(shelf: Shelf) -> None:
    with pytest.raises(WorkflowNotFound):
        await read_journal(ThreadedReader(shelf.reader), "w", "")


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (e.WorkflowSignaled(signal_name="approve"), "approve"),
        (e.ActivityCompleted(activity_id=7, attempt=3), "charge #7 · attempt 3"),
        (
            e.ActivityAttemptFailed(activity_id=9, attempt=1, failure=FAILED, retry_time_ms=1),
            "activity #9 · Gateway: gateway 504",
        ),
        (dispatched(7, 8, 9, attempt=1), "charge #7 and 2 others"),
        (e.WorkflowTerminated(reason="enough"), "enough"),
        (e.EventPublished(topic="paid", key=b"k", payload=Payload(data=b"1")), "paid"),
        (e.WorkflowCompleted(), ""),
    ],
)
def test_what_an_event_is_about(event: e.EventBase, words: str) -> None:
    assert what(event, {7: "charge"}) == words


def fields(event: e.EventBase) -> dict[str, str]:
    return dict(module._fields(event))


def test_fields_are_text_and_bounded() -> None:
    event = e.WorkflowSignaled(
        signal_name="<b>",
        input=(
            Payload(data=b'{"a":[1]}'),
            Payload(data=b'"two\\nlines"'),
            Payload(data=b"\x00\xff\x10", encoding="binary/plain"),
            Payload(data=b"not json"),
            Payload(data=b"", encoding="binary/null"),
            Payload(data=b"[" * 100_000),
        ),
    )
    found = fields(event)
    assert found["signal_name"] == "<b>"
    assert found["input"].startswith('{\n  "a": [\n    1\n  ]\n}\ntwo\nlines\n00 ff10\nnot json\nnull\n[[[')
    assert len(found["input"]) < module.MAX_FIELD_CHARS + 100
    assert found["input"].endswith("characters; the download has them all)")


def test_fields_leave_out_what_says_nothing_and_name_times() -> None:
    found = fields(
        e.ActivityScheduled(
            activity_id=1,
            activity_type="charge",
            task_queue="q",
            start_to_close_ms=90_000,
            retry_policy=RetryPolicy(maximum_attempts=3),
            headers={"traceparent": "00-1"},
        )
    )
    assert found["start_to_close"] == "1 min 30 s"
    assert "maximum_attempts 3" in found["retry_policy"]
    assert found["headers"] == "traceparent: 00-1"
    assert "worker" not in found


def test_a_chain_of_failures_is_told_to_its_root() -> None:
    event = e.WorkflowFailed(failure=FAILED)
    assert fields(event)["failure"] == "activity 'charge' failed\n\ncaused by Gateway: gateway 504"


def test_every_kind_of_event_is_in_some_list_that_people_may_ask_for() -> None:
    kinds = {*e.FACTS, *e.OUTCOMES, *e.Note.__args__}
    assert {kind for shown in SHOWN.values() for kind in shown} == kinds
    assert {"", *SHOWN} == set(get_args(Shown))


@pytest.mark.parametrize("text", ["x", "1", "1.", ".2", "-1.2", "1.2.3", "١.٢", f"{10**18}.1", f"1.{9:5000}"])
def test_what_is_no_place_in_a_list_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="is not a place in a list of events"):
        cursor_of(text)
    assert cursor_of("") is None
    assert cursor_of("3.14") == Cursor(3, 14)
