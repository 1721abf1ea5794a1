"""Handlers that are set at run time, and handlers that have not ended."""

from __future__ import annotations

import asyncio

import pytest
from workflow_kit import Run, completed, fired, signal

from orchestrator import workflow
from orchestrator.errors import UsageError
from orchestrator.protocol.events import WorkflowSignaled
from orchestrator.workflow.definition import definition_of
from orchestrator.workflow.instance import WorkflowCodeError
from orchestrator.workflow.signals import Signals


@workflow.defn(dynamic_signals=True)
class Open:
    @workflow.run
    async def run(self) -> None:
        workflow.set_signal_handler("found out at run time", lambda: None)
        await asyncio.sleep(1)


@workflow.defn
class Closed:
    @workflow.run
    async def run(self, name: str) -> str:
        self.by = ""
        workflow.set_signal_handler(name, self.replaced)
        await workflow.wait_condition(lambda: bool(self.by))
        return self.by

    @workflow.signal
    def declared(self) -> None:
        self.by = "the class"

    def replaced(self) -> None:
        self.by = "set at run time"


def test_only_dynamic_signals_allow_names_that_the_class_does_not_declare() -> None:
    assert definition_of(Open).dynamic_signals
    Run(Open).start()
    assert not definition_of(Closed).dynamic_signals
    message = r"declares no signal 'other'.*refused; declare it.*dynamic_signals=True"
    with pytest.raises(WorkflowCodeError, match=message):
        Run(Closed, ("other",)).start()
    with pytest.raises(UsageError, match=message):
        Signals(definition_of(Closed)).set_handler("other", None)


def test_a_declared_handler_can_be_replaced() -> None:
    run = Run(Closed, ("declared",))
    run.start()
    run.tell(signal("declared"))
    assert run.result == "set at run time"


@pytest.mark.parametrize(
    ("cls", "name", "accepted"),
    [(Closed, "declared", True), (Closed, "x", False), (Open, "x", True), (Open, "__x", False)],
)
def test_which_names_may_be_sent(cls: type, name: str, accepted: bool) -> None:
    assert definition_of(cls).accepts_signal(name) is accepted


def test_signals_wait_in_order_for_a_handler() -> None:
    signals = Signals(definition_of(Open))
    facts = [WorkflowSignaled(signal_name="x"), WorkflowSignaled(signal_name="x", identity="me")]
    assert [signals.handler_of(fact) for fact in facts] == [None, None]
    assert signals.set_handler("x", None) == []
    assert signals.set_handler("x", print) == facts
    assert signals.set_handler("x", print) == []
    handler = signals.handler_of(facts[0])
    assert handler is not None
    assert handler.fn is print


@workflow.defn
class Hurries:
    @workflow.run
    async def run(self, wait: bool = False) -> None:
        await workflow.execute_activity("a", start_to_close_timeout=1)
        if wait:
            await workflow.wait_condition(workflow.all_handlers_finished)

    @workflow.signal
    async def ship(self) -> None:
        await workflow.sleep(10)

    @workflow.signal
    async def bill(self) -> None:
        await workflow.sleep(20)

    @workflow.signal
    def note(self) -> None:
        pass


def test_handlers_that_still_run_at_the_end_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(Hurries)
    run.start(signal("ship"), signal("bill"), signal("ship"), signal("note"))
    assert not caplog.records
    assert run.tell(completed(1)) == ["complete"]
    (record,) = caplog.records
    assert "'Hurries' ended while handlers of signals still ran: 'ship' (2 times), 'bill';" in record.message
    assert (vars(record)["workflow_id"], vars(record)["run_id"]) == ("wf", "run-1")
    assert "all_handlers_finished" in record.message
    caplog.clear()
    run.replay()
    run.close()
    assert not caplog.records


def test_a_run_can_wait_for_its_handlers(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(Hurries, (True,))
    run.start(signal("ship"), signal("note"))
    assert run.tell(completed(1)) == []
    assert run.tell(fired(1)) == ["complete"]
    assert not caplog.records
    run.replay()
