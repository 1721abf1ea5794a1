"""How a run begins and ends, what signals and queries do, and what tags and info say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from workflow_kit import START_MS, Run, cancel, completed, failed, pay, signal

from orchestrator import workflow
from orchestrator.errors import (
    ActivityFailure,
    ApplicationError,
    QueryFailed,
    ReadOnlyViolation,
    UnknownName,
)
from orchestrator.protocol.actions import CompleteWorkflow, FailWorkflow
from orchestrator.protocol.events import WorkflowSignaled, WorkflowStarted
from orchestrator.protocol.values import FailureKind, Payload
from orchestrator.workflow.instance import MAX_TAGS, Instance, WorkflowCodeError


class OutOfStock(Exception):
    pass


@workflow.defn(failure_exception_types=[OutOfStock])
class Ends:
    @workflow.run
    async def run(self, how: str) -> Any:
        match how:
            case "return":
                return {"a": 1}
            case "application":
                raise ApplicationError("no", 17, type="Refused", non_retryable=True)
            case "timeout":
                raise TimeoutError("late")
            case "listed":
                raise OutOfStock("socks")
            case "activity":
                await workflow.execute_activity("a", start_to_close_timeout=1)
            case "group":
                async with asyncio.TaskGroup() as group:
                    group.create_task(workflow.execute_activity("a", start_to_close_timeout=1))
            case "bug":
                raise KeyError("a bug")
            case "cancelled":
                raise asyncio.CancelledError
            case "unencodable":
                return object()
            case "exit":
                raise SystemExit(3)
            case "exit in task":
                await asyncio.create_task(self.exit())
        return None

    async def exit(self) -> None:
        raise SystemExit(3)


def test_a_result_completes_the_workflow() -> None:
    run = Run(Ends, ("return",))
    assert run.start() == ["complete"]
    assert run.result == {"a": 1}


def test_no_result_is_no_payload() -> None:
    run = Run(Ends, ("",))
    run.start()
    assert run.last == CompleteWorkflow()


@pytest.mark.parametrize(
    ("how", "message", "type_"),
    [
        ("application", "no", "Refused"),
        ("timeout", "late", "TimeoutError"),
        ("listed", "socks", "OutOfStock"),
    ],
)
def test_declared_failures_fail_the_workflow(how: str, message: str, type_: str) -> None:
    run = Run(Ends, (how,))
    run.start()
    assert isinstance(run.last, FailWorkflow)
    assert (run.last.failure.message, run.last.failure.type) == (message, type_)
    assert "test_instance.py" in run.last.failure.stack


def test_the_failure_of_an_activity_keeps_its_cause() -> None:
    run = Run(Ends, ("activity",))
    run.start()
    run.tell(failed(1, "card declined"))
    assert isinstance(run.last, FailWorkflow)
    assert run.last.failure.kind is FailureKind.ACTIVITY
    assert run.last.failure.cause is not None
    assert run.last.failure.cause.message == "card declined"


def test_a_group_of_declared_failures_is_declared() -> None:
    run = Run(Ends, ("group",))
    run.start()
    assert run.tell(failed(1, "card declined"))[0].startswith("fail")


@pytest.mark.parametrize(
    ("how", "type_"),
    [
        ("bug", "KeyError"),
        ("cancelled", ""),
        ("unencodable", "PayloadError"),
        ("exit", "SystemExit"),
        ("exit in task", "SystemExit"),
    ],
)
def test_anything_else_is_a_bug_and_leaves_no_action(how: str, type_: str) -> None:
    run = Run(Ends, (how,))
    with pytest.raises(WorkflowCodeError) as raised:
        run.start()
    assert raised.value.failure.type == type_
    assert not run.instance.closed
    with pytest.raises(RuntimeError, match="its code failed"):
        run.tell()
    run.close()


@workflow.defn
class AsksThenFails:
    @workflow.run
    async def run(self) -> None:
        workflow.start_activity("a", start_to_close_timeout=1)
        await asyncio.sleep(0)
        raise ValueError("after asking")


def test_what_was_asked_for_before_the_bug_does_not_leak() -> None:
    run = Run(AsksThenFails)
    with pytest.raises(WorkflowCodeError, match="ValueError: after asking"):
        run.start()
    run.close()


@workflow.defn
class CancelledActivity:
    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.execute_activity("a", start_to_close_timeout=1)
        except asyncio.CancelledError as error:
            failure = ActivityFailure(
                "cancelled", activity_type="a", activity_id=1, attempt=1, retry_state="", cause=error
            )
            raise failure from error


def test_an_activity_failure_caused_by_the_cancellation_is_the_cancellation() -> None:
    run = Run(CancelledActivity)
    run.start()
    assert run.tell(cancel()) == ["cancel activity 1", "canceled"]


# --- input ---


@dataclass
class Order:
    order_id: str
    at: datetime


@workflow.defn
class Typed:
    @workflow.run
    async def run(self, order: Order, count: int = 2) -> str:
        return f"{type(order).__name__} {order.at.year} {count}"


def test_arguments_are_decoded_by_the_annotations() -> None:
    run = Run(Typed, (Order("o-1", datetime(2024, 5, 1, tzinfo=UTC)),))
    run.start()
    assert run.result == "Order 2024 2"


@pytest.mark.parametrize("args", [(), ({"order_id": 1},), ("text",), ({}, 2, 3)])
def test_input_that_cannot_be_used_fails_the_workflow(args: tuple[Any, ...]) -> None:
    run = Run(Typed, args)
    (action,) = run.start(signal("unknown"))
    assert action.startswith("fail the input of workflow 'Typed' cannot be used: ")


@workflow.defn
class WithInit:
    @workflow.init
    def __init__(self, order_id: str) -> None:
        self.order_id = order_id

    @workflow.run
    async def run(self, order_id: str) -> str:
        return self.order_id + order_id


def test_init_gets_the_input() -> None:
    run = Run(WithInit, ("x",))
    run.start()
    assert run.result == "xx"


@workflow.defn
class BadInit:
    def __init__(self) -> None:
        raise ApplicationError("cannot begin")

    @workflow.run
    async def run(self) -> None:
        pass


def test_an_exception_in_init_follows_the_rule_of_run() -> None:
    assert Run(BadInit).start() == ["fail cannot begin"]


# --- signals ---


@workflow.defn(dynamic_signals=True)
class Signals:
    def __init__(self) -> None:
        self.got: list[str] = []

    @workflow.run
    async def run(self, listen: bool = False) -> list[str]:
        if listen:
            await workflow.execute_activity("a", start_to_close_timeout=1)
            workflow.set_signal_handler("late", self.take)
        await workflow.wait_condition(lambda: "end" in self.got)
        return self.got

    def take(self, what: str) -> None:
        self.got.append(what)

    @workflow.signal(name="add")
    def on_add(self, number: int) -> None:
        self.got.append(str(number))

    @workflow.signal
    async def end(self) -> None:
        self.got.append("end")

    @workflow.signal
    async def fail(self, declared: bool) -> None:
        await asyncio.sleep(0)
        raise ApplicationError("declared") if declared else ValueError("a bug")


def test_signals_before_a_handler_exists_are_buffered() -> None:
    run = Run(Signals, (True,))
    run.start(signal("late", "1"), signal("late", "2"))
    run.tell(signal("late", "3"))
    run.tell(completed(1))
    run.tell(signal("late", "4"))
    run.tell(signal("end"))
    assert run.result == ["1", "2", "3", "4", "end"]
    run.replay()


@pytest.mark.parametrize(
    "bad", [signal("add", "text"), signal("add"), signal("add", 1, 2), WorkflowSignaled(signal_name="add")]
)
def test_a_signal_that_cannot_be_decoded_is_dropped_and_logged(
    bad: WorkflowSignaled, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(Signals)
    run.start(signal("add", 1), bad, signal("end"))
    assert run.result == ["1", "end"]
    assert "signal 'add' was dropped" in caplog.text


def test_exceptions_in_handlers_follow_the_rule_of_run() -> None:
    run = Run(Signals)
    run.start()
    assert run.tell(signal("fail", True)) == ["fail declared"]
    run = Run(Signals)
    run.start()
    with pytest.raises(WorkflowCodeError, match="a bug"):
        run.tell(signal("fail", False))


# --- queries ---


@workflow.defn
class Queries:
    def __init__(self) -> None:
        self.status = "new"
        self.event = asyncio.Event()

    @workflow.run
    async def run(self) -> str:
        self.status = "waiting"
        await self.wait_here()
        self.status = "done"
        return self.status

    async def wait_here(self) -> None:
        await self.event.wait()

    @workflow.query(name="status")
    def get_status(self, prefix: str = "") -> str:
        return prefix + self.status

    @workflow.query
    def bad(self) -> None:
        raise ValueError("no answer")

    @workflow.query
    def changes(self, how: str) -> None:
        ways: dict[str, Any] = {
            "activity": lambda: workflow.start_activity("a", start_to_close_timeout=1),
            "task": lambda: asyncio.create_task(self.wait_here()),
            "callback": lambda: asyncio.get_running_loop().call_soon(print),
            "timer": lambda: asyncio.get_running_loop().call_later(1, print),
            "random": workflow.random,
            "uuid": workflow.uuid4,
            "tag": lambda: workflow.add_tag("t"),
            "handler": lambda: workflow.set_signal_handler("x", print),
            "event": self.event.set,
            "state": lambda: vars(self).update(status="changed"),
            "then-raises": lambda: (vars(self).update(status="changed"), self.bad()),
            "swallows": lambda: self.swallow(lambda: workflow.add_tag("t")),
        }
        ways[how]()

    def swallow(self, what: Callable[[], None]) -> None:
        with suppress(Exception):
            what()


def test_queries_answer_from_the_state_and_take_arguments() -> None:
    run = Run(Queries)
    run.start()
    assert run.query("status") == "waiting"
    assert run.query("status", "is ") == "is waiting"


def test_an_unknown_query_tells_which_there_are() -> None:
    run = Run(Queries)
    run.start()
    with pytest.raises(UnknownName, match="has no query 'nope'; it has __stack, bad, changes, status"):
        run.query("nope")


def test_what_a_query_raises_is_query_failed() -> None:
    run = Run(Queries)
    run.start()
    with pytest.raises(QueryFailed, match="ValueError: no answer"):
        run.query("bad")
    with pytest.raises(QueryFailed, match="takes 0 argument"):
        run.query("bad", 1)
    assert run.instance.usable
    assert run.tell() == []


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("activity", "starting an activity (refused)"),
        ("task", "create_task (refused)"),
        ("callback", "scheduling a callback (refused)"),
        ("timer", "a timer (refused)"),
        ("random", "drawing a random number (refused)"),
        ("uuid", "drawing a random number (refused)"),
        ("tag", "adding a tag (refused)"),
        ("handler", "setting a signal handler (refused)"),
        ("event", "Event._value in self.event, a Future in self.event, scheduling a callback (refused)"),
        ("state", "self.status"),
        ("then-raises", "self.status"),
        ("swallows", "adding a tag (refused)"),
    ],
)
def test_a_query_that_changes_the_workflow_is_refused_and_the_instance_is_not_used_again(
    how: str, said: str
) -> None:
    run = Run(Queries)
    run.start()
    with pytest.raises(QueryFailed, match="a query may only look") as raised:
        run.query("changes", how)
    assert f"query 'changes' changes the workflow: {said}; " in str(raised.value)
    assert isinstance(raised.value.__cause__, ReadOnlyViolation)
    assert not run.instance.usable
    with pytest.raises(RuntimeError, match="query 'changes' changed it"):
        run.tell()


def test_the_stack_query_tells_where_the_code_waits() -> None:
    run = Run(Queries)
    run.start()
    text = run.query("__stack")
    assert text.startswith("task 'run'\n")
    assert "Queries.run\n    await self.wait_here()" in text
    assert "Queries.wait_here\n    await self.event.wait()" in text
    assert "orchestrator/workflow" not in text


# --- tags, info, late facts ---


@workflow.defn
class Tagged:
    @workflow.run
    async def run(self, count: int) -> None:
        for number in range(count):
            workflow.add_tag(f"tag-{number}")
            workflow.add_tag("tag-0")


def test_tags_stand_on_the_terminal_action() -> None:
    run = Run(Tagged, (2,))
    run.start()
    assert run.last == CompleteWorkflow(tags=("tag-0", "tag-1"))


def test_tags_have_a_limit() -> None:
    with pytest.raises(WorkflowCodeError, match=f"{MAX_TAGS} tags already"):
        Run(Tagged, (MAX_TAGS + 1,)).start()


@workflow.defn(name="informed")
class Informed:
    @workflow.run
    async def run(self) -> None:
        info = workflow.info()
        assert (info.workflow_id, info.run_id, info.workflow_type) == ("wf", "r", "informed")
        assert info.start_time == datetime.fromtimestamp(START_MS / 1_000, UTC)
        assert info.run_timeout == timedelta(seconds=90)
        assert (info.attempt, info.namespace, info.history_length) == (1, "default", 17)
        assert workflow.in_workflow()
        assert workflow.now() == datetime.fromtimestamp(START_MS / 1_000 + 1, UTC)
        assert workflow.time() == START_MS / 1_000 + 1
        assert workflow.time_ns() == (START_MS + 1_000) * 1_000_000


def test_info() -> None:
    assert not workflow.in_workflow()
    started = WorkflowStarted(workflow_type="informed", run_timeout_ms=90_000)
    instance = Instance(
        workflow.definition_of(Informed),
        workflow_id="wf",
        run_id="r",
        started=started,
        start_time_ms=START_MS,
    )
    assert instance.activate([started], START_MS + 1_000, history_events=17) == (CompleteWorkflow(),)


def test_facts_about_what_was_never_asked_for_are_nondeterminism() -> None:
    run = Run(Queries)
    run.start()
    with pytest.raises(WorkflowCodeError, match="history tells of activity 7, but the code has asked for 0"):
        run.tell(completed(7))


@workflow.defn
class TypedResult:
    @workflow.run
    async def run(self) -> str:
        order = await workflow.execute_activity("fetch", start_to_close_timeout=1, result_type=Order)
        return order.order_id


def test_results_are_decoded_by_the_hint_and_a_wrong_one_is_a_bug() -> None:
    run = Run(TypedResult)
    run.start()
    run.tell(completed(1, Order("o-1", datetime(2024, 5, 1, tzinfo=UTC))))
    assert run.result == "o-1"
    run = Run(TypedResult)
    run.start()
    with pytest.raises(WorkflowCodeError, match="the result of activity 'fetch' cannot be decoded"):
        run.tell(completed(1, "text"))


def test_payloads_are_values() -> None:
    assert pay(1) == (Payload(data=msgspec.json.encode(1)),)
