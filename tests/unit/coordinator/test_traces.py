"""The trace of a run: from the command that starts it, through its turns, to what they send."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.log.port import Record
from orchestrator.log.topics import COMMANDS
from orchestrator.protocol import commands as c
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.protocol.values import Failure, FailureKind
from orchestrator.telemetry.spans import Spans, span_id_of

from .kit import Bench, report, start

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=b"}


@workflow.defn(name="Order")
class Order:
    @workflow.run
    async def run(self) -> str:
        workflow.publish("orders", {"id": 1})
        workflow.publish("orders", {"id": 2}, headers={"traceparent": "mine"})
        found: str = await workflow.execute_activity("pay", start_to_close_timeout=timedelta(seconds=60))
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Order)


class Traced:
    """A bench whose coordinators make spans."""

    def __init__(self, folder: Path) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        options = {"traces": Spans(provider.get_tracer("test"))}
        self.bench = type("Bench", (Bench,), {"options": options})(folder, Order)

    @property
    def told(self) -> list[str]:
        return [span.name for span in self.exporter.get_finished_spans()]


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    return Traced(tmp_path)


def task_of(bench: Bench) -> ActivityTask:
    task = bench.tasks[-1]
    assert isinstance(task, ActivityTask)
    return task


FAILED = Failure(kind=FailureKind.APPLICATION, message="no")


def test_without_a_trace_nothing_carries_any(bench: Bench) -> None:
    bench.beat()
    bench.send(start())
    bench.publish()
    assert [turn.headers for turn in bench.turns] == [{}]
    assert task_of(bench).headers == {}
    assert "traceparent" not in bench.published()[0].headers


def test_who_makes_no_spans_hands_on_what_the_command_carries(bench: Bench) -> None:
    bench.beat()
    bench.send(start(headers=PARENT | {"other": "x"}))
    bench.publish()
    assert [turn.headers for turn in bench.turns] == [PARENT]
    assert task_of(bench).headers == PARENT
    ours, theirs = (record.headers for record in bench.published())
    assert (ours["traceparent"], ours["tracestate"]) == (PARENT["traceparent"].encode(), b"a=b")
    assert theirs["traceparent"] == b"mine"


@pytest.mark.parametrize("how", ["from the store", "from history"])
def test_a_later_attempt_carries_it_too_whoever_owns_the_run_then(
    bench: Bench, tmp_path: Path, how: str
) -> None:
    bench.beat()
    bench.send(start(headers=PARENT))
    bench.send(report(task_of(bench), c.FailActivity, failure=FAILED))
    bench.coordinator.finish()
    if how == "from history":
        shutil.rmtree(tmp_path)
    bench.begin()
    bench.beat()
    bench.pass_s(2)
    assert (task_of(bench).attempt, task_of(bench).headers) == (2, PARENT)
    assert all(turn.headers == PARENT for turn in bench.turns)


def land(bench: Bench, command: c.StartWorkflow, headers: dict[str, bytes]) -> None:
    bench.cluster.land(Record(COMMANDS, 0, -1, 0, b"", avro.encode(command), headers))
    bench.settle()


def test_a_foreign_producers_trace_stands_in_the_headers_of_its_record(bench: Bench) -> None:
    land(bench, start(), {"traceparent": PARENT["traceparent"].encode(), "from": b"shop"})
    assert bench.turns[0].headers == {"traceparent": PARENT["traceparent"]}


def test_what_the_command_itself_carries_wins(bench: Bench) -> None:
    land(bench, start(headers=PARENT), {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01".encode()})
    assert bench.turns[0].headers == PARENT


def test_headers_that_are_no_trace_say_nothing(bench: Bench) -> None:
    land(bench, start(), {"traceparent": b"\xff", "from": b"shop"})
    assert bench.turns[0].headers == {}


def test_the_runs_own_span_is_what_its_activities_belong_to(traced: Traced) -> None:
    bench = traced.bench
    bench.beat()
    bench.send(start(headers=PARENT))
    own = f"00-{TRACE}-{span_id_of(bench.turns[0].run_id):016x}-01"
    assert bench.turns[0].headers == {"traceparent": own, "tracestate": "a=b", "parent-span": SPAN}
    assert task_of(bench).headers == {"traceparent": own, "tracestate": "a=b"}
    assert not traced.told
    bench.send(report(task_of(bench)))
    (span,) = traced.exporter.get_finished_spans()
    assert (span.name, span.parent.span_id) == ("RunWorkflow:Order", int(SPAN, 16))


@pytest.mark.parametrize("how", ["finish", "crash", "lose the store"])
def test_a_run_is_told_of_once_whoever_comes_after(traced: Traced, tmp_path: Path, how: str) -> None:
    bench = traced.bench
    bench.beat()
    bench.send(start())
    bench.send(report(task_of(bench)))
    assert traced.told == ["RunWorkflow:Order"]
    bench.coordinator.finish() if how == "finish" else bench.crash()
    if how == "lose the store":
        shutil.rmtree(tmp_path)
    bench.begin()
    bench.settle()
    assert traced.told == ["RunWorkflow:Order"]


def test_a_run_is_told_of_by_whoever_closes_it(traced: Traced) -> None:
    bench = traced.bench
    bench.beat()
    bench.send(start(headers=PARENT))
    bench.crash()
    bench.begin()
    bench.send(report(task_of(bench)))
    assert traced.told == ["RunWorkflow:Order"]


def test_nothing_is_told_of_a_close_that_was_never_committed(traced: Traced) -> None:
    bench = traced.bench
    bench.beat()
    bench.send(start())
    bench.runtime.hook = dies_at("appended")
    bench.put(report(task_of(bench)))
    with pytest.raises(Died):
        bench.step(5)
    assert not traced.told


class Died(BaseException):
    """The process ends here."""


def dies_at(point: str) -> Callable[[str], None]:
    def at(found: str) -> None:
        if found == point:
            raise Died

    return at
