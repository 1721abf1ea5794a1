"""Inputs become turns: what ends one, what the code is told, what is refused."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator import workflow
from orchestrator.engine import execution
from orchestrator.errors import ApplicationError
from orchestrator.protocol import commands as c
from orchestrator.protocol import events as e
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.protocol.values import MAX_PAYLOAD_BYTES, Failure, FailureKind, Payload
from orchestrator.workflow.loop import Evicted

from .kit import TO_ME, Bench, pay, query, report, signal, start
from .orders import Order, blocks, terminate


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, Order)


def test_a_start_and_a_signal_are_one_turn_and_the_handler_runs_first(bench: Bench) -> None:
    bench.send(start(), signal("note", "x"), query("all"))
    assert bench.words() == ["done: WorkflowStarted WorkflowSignaled"]
    assert bench.value("query") == ["x", "run"]
    assert [cause.request_id for cause in bench.turns[0].causes] == ["start", "note('x',)"]


def test_a_signal_before_the_start_is_refused(bench: Bench) -> None:
    bench.send(signal("note", "x", request_id="s"), start())
    assert bench.words() == ["done: WorkflowStarted"]
    assert bench.reply("s").rejection == "workflow-not-found"
    assert bench.reply("start").run_id == bench.turns[0].run_id


def test_many_signals_are_one_turn(bench: Bench) -> None:
    bench.send(start())
    bench.send(*(signal("note", str(n)) for n in range(5)))
    assert bench.words()[1:] == ["done: " + " ".join(["WorkflowSignaled"] * 5)]


def test_a_turn_ends_before_a_start_of_an_open_id(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("finish"), start(request_id="again"), signal("note", "new"))
    assert bench.words() == [
        "done: WorkflowStarted",
        "done: WorkflowSignaled WorkflowCompleted",
        "done: WorkflowStarted WorkflowSignaled",
    ]
    first, _, second = bench.turns
    assert first.run_id != second.run_id
    assert bench.reply("again").run_id == second.run_id
    assert (second.turn, second.first_event_id) == (1, 1)


def test_a_start_of_an_open_id_is_refused_after_what_came_before_it(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("note", "x"), start(request_id="again"), signal("note", "y"))
    assert bench.reply("again").rejection == "workflow-already-started"
    assert bench.words()[1:] == ["done: WorkflowSignaled", "done: WorkflowSignaled"]


def test_a_turn_ends_before_a_termination(bench: Bench) -> None:
    bench.send(start())
    bench.send(signal("finish"), terminate())
    assert bench.words()[1:] == ["done: WorkflowSignaled WorkflowCompleted"]
    assert bench.reply("terminate").rejection == "workflow-closed"


def test_what_closes_ends_the_turn_and_what_follows_is_refused(bench: Bench) -> None:
    bench.send(start())
    bench.send(terminate(), signal("note", "x", request_id="late"))
    assert bench.words()[1:] == ["none: WorkflowTerminated"]
    assert bench.reply("late").rejection == "workflow-closed"


def test_a_query_sees_the_signals_before_it_and_none_after(bench: Bench) -> None:
    bench.send(start(), signal("note", "x"))
    bench.send(signal("note", "y"), query("all"), signal("note", "z"))
    assert bench.value("query") == ["x", "run", "y"]
    assert bench.words()[1:] == ["done: WorkflowSignaled", "done: WorkflowSignaled"]


def test_a_closed_run_can_be_queried_also_after_a_restart(bench: Bench) -> None:
    bench.send(start(), signal("note", "x"))
    bench.send(signal("finish"))
    bench.send(query("all", request_id="q1"))
    bench.restart()
    bench.send(query("all", request_id="q2"))
    assert bench.value("q1") == bench.value("q2") == ["x", "run"]


@workflow.defn(name="Order")
class Meddler(Order):
    """Asks in a way that changes what is asked about."""

    @workflow.query
    def pop(self) -> str:
        return self.seen.pop()


def test_what_a_query_changes_is_refused_and_undone(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Meddler)
    bench.send(start(), signal("note", "x"))
    for number in range(2):  # it is refused each time, because it is undone each time
        bench.send(query("pop", request_id=f"pop{number}"))
        failure = bench.reply(f"pop{number}").failure
        assert failure is not None
        assert (
            "query 'pop' changes the workflow: a list in self.seen; a query may only look" in failure.message
        )
    bench.send(query("all"))
    assert bench.value("query") == ["x", "run"]
    bench.send(query("pop", request_id="in-one-step"), signal("note", "y"), query("all", request_id="then"))
    assert bench.value("then") == ["x", "run", "y"]
    assert blocks(bench) == []


@dataclass
class Slow:
    """Its making may not give way, which only a watchdog ends."""

    text: str

    def __post_init__(self) -> None:
        if self.text == "slow":
            raise Evicted


@workflow.defn(name="Order")
class Careful(Order):
    @workflow.signal
    def put(self, count: int, what: Slow | None = None) -> None:
        self.seen.append(f"{count}")


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ((), "Careful.put() takes 1 to 2 argument(s), and 0 were given"),
        ((1, None, 3), "Careful.put() takes 1 to 2 argument(s), and 3 were given"),
        (("many",), "cannot be read as int"),
        ((1, {"text": 5}), "Expected `str`, got `int`"),
    ],
)
def test_a_signal_whose_arguments_do_not_fit_is_refused(
    tmp_path: Path, args: tuple[Any, ...], why: str
) -> None:
    bench = Bench(tmp_path, Careful)
    bench.send(start(), signal("put", *args, request_id="s"), signal("put", 7))
    reply = bench.reply("s")
    assert reply.rejection == "invalid-arguments"
    assert reply.message.startswith("signal 'put' of workflow 'Order' cannot take this: ")
    assert why in reply.message
    bench.send(query("all"))
    assert bench.value("query") == ["7", "run"]


def test_a_signal_whose_arguments_do_not_give_way_blocks_its_run(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Careful)
    bench.send(start())
    bench.send(signal("put", 1, {"text": "slow"}, request_id="s"))
    assert bench.reply("s").rejection == ""
    assert bench.words()[1:] == ["deferred: WorkflowSignaled WorkflowBlocked"]


def test_a_query_of_what_there_is_not(bench: Bench) -> None:
    bench.send(query("all", request_id="q0"), start())
    bench.send(query("none", request_id="q1"), query("all", request_id="q2", run_id="other"))
    assert bench.reply("q0").rejection == "workflow-not-found"
    assert bench.reply("q1").rejection == "unknown-name"
    assert "all" in bench.reply("q1").message
    assert bench.reply("q2").rejection == "workflow-not-found"


# ----------------------------------------------------------------------------------------- repeats


def test_a_repeat_in_the_same_step_has_one_effect(bench: Bench) -> None:
    bench.send(start(), start(), signal("note", "x"), signal("note", "x"))
    assert bench.words() == ["done: WorkflowStarted WorkflowSignaled"]
    answers = [reply.run_id for reply in bench.replies if reply.request_id == "start"]
    assert answers == [bench.turns[0].run_id] * 2


def test_a_repeat_while_the_first_is_in_flight_is_answered_with_it(bench: Bench) -> None:
    bench.put(start())
    bench.step()
    assert bench.partition.ownership.in_flight == 1
    bench.put(start())
    bench.settle()
    assert len(bench.turns) == 1
    assert [reply.run_id for reply in bench.replies] == [bench.turns[0].run_id] * 2


@pytest.mark.parametrize("restart", [False, True])
def test_a_repeat_of_what_is_committed_is_answered_as_the_first(bench: Bench, restart: bool) -> None:
    bench.send(start(), signal("finish"))
    if restart:
        bench.restart()
    bench.send(start(), signal("finish"))
    assert len(bench.turns) == 1
    assert {reply.run_id for reply in bench.replies} == {bench.turns[0].run_id}
    assert not any(reply.rejection for reply in bench.replies)


def test_a_repeat_of_a_refused_command_is_refused_for_ten_minutes(bench: Bench) -> None:
    bench.send(signal("note", "x", request_id="s"))
    bench.send(start())
    bench.send(signal("note", "x", request_id="s"))
    assert [reply.rejection for reply in bench.replies if reply.request_id == "s"] == [
        "workflow-not-found",
        "workflow-not-found",
    ]
    bench.pass_s(601)
    bench.send(signal("note", "x", request_id="s"))
    assert bench.replies[-1].rejection == ""
    assert bench.words()[-1] == "done: WorkflowSignaled"


# ---------------------------------------------------------------------------------------- refusals


def test_unknown_names_are_refused_with_the_known_ones(bench: Bench) -> None:
    bench.send(start(request_id="s", workflow_type="Nope"), start())
    assert (bench.reply("s").rejection, bench.reply("s").message) == (
        "unknown-name",
        "there is no workflow type 'Nope'; known: Order",
    )
    bench.send(signal("nope", request_id="n"))
    assert bench.reply("n").rejection == "unknown-name"
    assert "finish, note, stumble" in bench.reply("n").message


BIG = Payload(data=b"x" * (MAX_PAYLOAD_BYTES + 1))


@pytest.mark.parametrize(
    "command",
    [
        start("b", "big", input=(BIG,)),
        start("b", "big", memo={"m": BIG}),
        start("b", "big", search_attributes={"m": BIG}),
        signal("note", request_id="big", workflow_id="a").__class__(
            workflow_id="a", signal_name="note", input=(BIG,), request_id="big", reply_to=TO_ME
        ),
        terminate("big", details=(BIG,)),
    ],
    ids=["input", "memo", "search attributes", "signal", "details"],
)
def test_payloads_that_are_too_large_are_refused(bench: Bench, command: c.Command) -> None:
    bench.send(start())
    bench.send(command)
    assert bench.reply("big").rejection == "limit-exceeded"
    assert str(MAX_PAYLOAD_BYTES) in bench.reply("big").message
    assert len(bench.turns) == 1


@workflow.defn(name="Order")
class OneActivity:
    """Runs one activity."""

    @workflow.run
    async def run(self) -> Any:
        return await workflow.execute_activity("pay", schedule_to_close_timeout=60)


@pytest.mark.parametrize("what", ["result", "failure"])
def test_a_report_that_is_too_large_fails_the_activity(tmp_path: Path, what: str) -> None:
    bench = Bench(tmp_path, OneActivity)
    bench.beat()
    bench.send(start())
    (task,) = bench.tasks
    if what == "result":
        bench.send(report(task, result=BIG))
    else:
        failure = Failure(kind=FailureKind.APPLICATION, message="m", details=(BIG,), stack="s" * 400_000)
        bench.send(report(task, c.FailActivity, failure=failure))
    assert bench.words()[1:] == ["done: ActivityFailed WorkflowFailed"]
    failed = bench.turns[1].events[0]
    assert isinstance(failed, e.ActivityFailed)
    assert str(MAX_PAYLOAD_BYTES) in failed.failure.message


# ----------------------------------------------------------------------------------- activities


@workflow.defn(name="Order")
class CancelsActivity:
    """Cancels its activity on a signal."""

    def __init__(self) -> None:
        self.stop = False

    @workflow.signal
    def halt(self) -> None:
        self.stop = True

    @workflow.run
    async def run(self) -> str:
        handle = workflow.start_activity(
            "pay",
            schedule_to_close_timeout=600,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await workflow.wait_condition(lambda: self.stop)
        handle.cancel()
        try:
            await handle
        except asyncio.CancelledError:
            return "cancelled"
        return "done"


def test_a_result_that_came_before_the_death_counts(tmp_path: Path) -> None:
    """Both are decided in one step: death is a command behind it in the log."""
    bench = Bench(tmp_path, OneActivity)
    bench.beat()
    bench.send(start())
    (task,) = bench.tasks
    bench.put(report(task, result=pay("paid")[0]), c.WorkerLost(worker="w1", partition=0))
    bench.settle()
    assert bench.words()[1:] == ["done: ActivityCompleted WorkflowCompleted"]
    assert bench.tasks == [task]


def test_what_a_lost_worker_had_does_not_go_to_it_again(tmp_path: Path) -> None:
    """A former owner of the partition said so; the present one has not missed its beats yet."""
    bench = Bench(tmp_path, OneActivity)
    bench.beat()
    bench.send(start())
    bench.put(c.WorkerLost(worker="w1", partition=0))
    bench.pass_s(5)
    assert [task.worker for task in bench.tasks] == ["w1"]
    bench.beat(worker="w2")
    assert [task.worker for task in bench.tasks] == ["w1", "w2"]


def test_an_activity_that_no_worker_has_is_cancelled_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CancelsActivity)
    bench.send(start())
    bench.send(signal("halt"))
    assert bench.words()[1:] == [
        "done: WorkflowSignaled ActivityCancelRequested",
        "done: ActivityCanceled WorkflowCompleted",
    ]
    assert bench.tasks == []
    bench.beat()
    assert bench.tasks == []
    assert bench.coordinator._dispatcher.backlogs() == ()


def test_a_result_and_a_cancellation_cross(tmp_path: Path) -> None:
    bench = Bench(tmp_path, CancelsActivity)
    bench.beat()
    bench.send(start())
    (task,) = bench.tasks
    bench.send(signal("halt"))
    assert len(bench.tasks) == 2
    bench.send(report(task, result=pay(1)[0]))
    assert bench.words()[2:] == ["done: ActivityCompleted WorkflowCompleted"]
    bench.send(report(task, c.ReportActivityCanceled))
    assert len(bench.turns) == 3


def test_what_waits_goes_to_a_worker_that_comes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OneActivity)
    bench.send(start())
    assert bench.tasks == []
    bench.beat()
    (task,) = bench.tasks
    assert isinstance(task, ActivityTask)
    assert (task.worker, task.attempt, task.dispatch) == ("w1", 1, 1)
    bench.send(report(task, result=pay("ok")[0]))
    assert bench.words() == [
        "done: WorkflowStarted ActivityScheduled",
        "none: ActivitiesDispatched",
        "done: ActivityCompleted WorkflowCompleted",
    ]


def test_a_returned_delivery_is_not_offered_to_that_worker_before_it_beats(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OneActivity)
    bench.beat()
    bench.send(start())
    bench.send(report(bench.tasks[0], c.ReturnActivity))
    assert len(bench.tasks) == 1
    bench.beat()
    assert [(task.attempt, task.dispatch) for task in bench.tasks] == [(1, 1), (1, 2)]


def test_a_failed_attempt_is_sent_again_when_its_backoff_ends(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OneActivity)
    bench.beat()
    bench.send(start())
    failure = Failure(kind=FailureKind.APPLICATION, message="no")
    bench.send(report(bench.tasks[0], c.FailActivity, failure=failure))
    bench.pass_s(0.9)
    assert len(bench.tasks) == 1
    bench.pass_s(0.2)
    assert [(task.attempt, task.dispatch) for task in bench.tasks] == [(1, 1), (2, 2)]


def test_a_waiting_activity_that_times_out_leaves_the_backlog(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OneActivity)
    bench.send(start())
    assert [found.waiting for found in bench.coordinator._dispatcher.backlogs()] == [1]
    bench.pass_s(61)
    assert bench.words()[1:] == ["done: ActivityTimedOut WorkflowFailed"]
    assert bench.coordinator._dispatcher.backlogs() == ()


# --------------------------------------------------------------------------------------- limits


def test_a_run_over_the_limit_is_terminated_and_warned_of_before(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(execution, "WARN_EVENTS", 3)
    monkeypatch.setattr(execution, "MAX_EVENTS", 5)
    bench.send(start())
    for n in range(5):
        bench.send(signal("note", str(n)))
    assert bench.words()[-1] == "none: WorkflowSignaled WorkflowTerminated"
    assert sum("more than 3 events" in record.getMessage() for record in caplog.records) == 1


def test_a_dispatch_that_goes_over_the_limit_frees_its_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, OneActivity)
    bench.send(start())
    monkeypatch.setattr(execution, "MAX_EVENTS", 2)
    bench.beat()
    assert bench.words()[-1] == "none: ActivitiesDispatched ActivitiesAbandoned WorkflowTerminated"
    assert bench.coordinator._dispatcher._workers["w1"].open == set()


def test_a_declared_failure_fails_the_run(tmp_path: Path) -> None:
    @workflow.defn(name="Order")
    class Fails:
        @workflow.run
        async def run(self) -> None:
            raise ApplicationError("no")

    bench = Bench(tmp_path, Fails)
    bench.send(start())
    assert bench.words() == ["done: WorkflowStarted WorkflowFailed"]
