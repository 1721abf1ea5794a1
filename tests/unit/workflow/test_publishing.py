"""What ``workflow.publish`` asks for, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from workflow_kit import Run

from orchestrator import workflow
from orchestrator.errors import NotInWorkflow
from orchestrator.protocol.actions import CompleteWorkflow, PublishEvent
from orchestrator.protocol.values import MAX_PAYLOAD_BYTES, Payload
from orchestrator.workflow.instance import WorkflowCodeError


@dataclass
class Shipped:
    order: str
    parcels: int


@workflow.defn
class Publishes:
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...] = ()

    @workflow.run
    async def run(self) -> None:
        for args, options in self.calls:
            workflow.publish(*args, **options)

    @workflow.query
    def loud(self) -> None:
        workflow.publish("orders", 1)


def run_of(*calls: tuple[tuple[Any, ...], dict[str, Any]]) -> Run:
    Publishes.calls = calls
    run = Run(Publishes)
    run.start()
    return run


def test_events_leave_in_the_order_of_the_calls() -> None:
    run = run_of(
        (("orders", Shipped("o-1", 2)), {}),
        (("raw.v-1_x", b"\xff"), {"key": b"k", "headers": {"content-type": "image/png", "n": b"1"}}),
        (("orders", None), {"key": "o-1"}),
    )
    assert run.turns[-1][2] == (
        PublishEvent(topic="orders", key=b"wf", payload=Payload(data=b'{"order":"o-1","parcels":2}')),
        PublishEvent(
            topic="raw.v-1_x",
            key=b"k",
            payload=Payload(data=b"\xff", encoding="binary/plain"),
            headers={"content-type": b"image/png", "n": b"1"},
        ),
        PublishEvent(topic="orders", key=b"o-1", payload=Payload(data=b"", encoding="binary/null")),
        CompleteWorkflow(),
    )
    run.replay()


@pytest.mark.parametrize(
    ("args", "options", "words"),
    [
        (("a b", 1), {}, "'a b' is no name of a topic; use letters"),
        (("", 1), {}, "'' is no name of a topic"),
        (("..", 1), {}, "no name of a topic"),
        ((b"t", 1), {}, "no name of a topic"),
        (("t" * 250, 1), {}, "has 250 characters, at most 249 are allowed"),
        (("t", object()), {}, "cannot be encoded as JSON"),
        (("t", float("nan")), {}, "NaN|nan"),
        (("t", b"x" * MAX_PAYLOAD_BYTES), {}, "has 262146 bytes with its key and headers, at most 262144"),
        (("t", 1), {"key": 1}, "the key is of type int; expected text or bytes"),
        (("t", 1), {"key": "\ud800"}, "no text that UTF-8 can say"),
        (("t", 1), {"headers": {"run-id": "mine"}}, "the header 'run-id' is set by the engine"),
        (("t", 1), {"headers": {"h": 1}}, "the header 'h' is of type int"),
        (([], 1), {}, r"\[\] is no name of a topic"),
        (("t", 1), {"headers": [("h", "x")]}, r"headers are .*; give a dict of names and values"),
        (("t", 1), {"headers": {5: "x"}}, "the name of a header is 5; give text"),
        (("t", 1), {"headers": {"\ud800": "x"}}, "no text that UTF-8 can say"),
        (("t", 1), {"headers": {"": "x"}}, "the name of a header is ''"),
    ],
)
def test_what_is_refused(args: tuple[Any, ...], options: dict[str, Any], words: str) -> None:
    with pytest.raises(WorkflowCodeError, match=words):
        run_of((args, options))


def test_the_largest_event_fits() -> None:
    run_of((("t", b"x" * (MAX_PAYLOAD_BYTES - 2)), {}))  # two bytes are the key


def test_a_query_may_not_publish() -> None:
    run = run_of()
    with pytest.raises(Exception, match="'loud' changes the workflow: publishing an event"):
        run.query("loud")


def test_only_workflow_code_publishes() -> None:
    with pytest.raises(NotInWorkflow, match=r"workflow\.publish"):
        workflow.publish("orders", 1)
