"""Golden traces: in which order code runs, and what it asks for."""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta

import pytest
from workflow_kit import Run, cancel, canceled, completed, failed, fired, signal, timed_out

from orchestrator import workflow
from orchestrator.errors import ActivityFailure, CanceledError, TimeoutFailure
from orchestrator.workflow import ActivityCancellationType as Cancellation


@workflow.defn
class Trace:
    """Temporal's test of order: a signal, a timer and an activity, each followed by a block."""

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.signals = 0

    @workflow.run
    async def run(self) -> list[str]:
        self.trace.append("run")
        timer = asyncio.create_task(self.timer())
        activity = asyncio.create_task(self.activity())
        await workflow.wait_condition(lambda: self.signals > 1)
        self.trace.append("two signals")
        await asyncio.gather(timer, activity)
        return self.trace

    async def timer(self) -> None:
        self.trace.append("timer-sync")
        await workflow.sleep(1)
        self.trace.append("timer-done")

    async def activity(self) -> None:
        self.trace.append("act-sync")
        await workflow.execute_activity("a", start_to_close_timeout=5)
        self.trace.append("act-done")

    @workflow.signal
    async def poke(self, name: str) -> None:
        self.trace.append(f"{name}-before")
        await asyncio.sleep(0)
        self.signals += 1
        self.trace.append(f"{name}-after")


def test_signals_that_come_with_the_start_run_before_the_body() -> None:
    run = Run(Trace)
    assert run.start(signal("poke", "s1")) == ["start timer 1 1000", "schedule 1 a"]
    assert run.instance._object.trace == ["s1-before", "run", "s1-after", "timer-sync", "act-sync"]


def test_facts_of_a_turn_are_applied_in_order_in_one_batch() -> None:
    run = Run(Trace)
    run.start()
    run.tell(signal("poke", "s1"), completed(1), signal("poke", "s2"), fired(1))
    assert run.result == [
        *["run", "timer-sync", "act-sync"],
        *["s1-before", "act-done", "s2-before", "s1-after", "s2-after", "timer-done", "two signals"],
    ]
    run.replay()


@workflow.defn
class Conditions:
    def __init__(self) -> None:
        self.free = 0
        self.trace: list[str] = []

    async def take(self, name: str) -> None:
        await workflow.wait_condition(lambda: self.free > 0)
        self.free -= 1
        self.trace.append(f"{name} {self.free}")

    @workflow.run
    async def run(self) -> list[str]:
        await asyncio.gather(self.take("a"), self.take("b"))
        return self.trace

    @workflow.signal
    def release(self) -> None:
        self.free += 1


def test_conditions_are_tested_in_the_order_of_registration_all_in_one_pass() -> None:
    run = Run(Conditions)
    run.start()
    assert run.tell(signal("release")) == ["complete"]
    assert run.result == ["a 0", "b -1"]


@workflow.defn
class ConditionWithTimeout:
    def __init__(self) -> None:
        self.ready = False

    @workflow.run
    async def run(self, timeout_s: float) -> str:
        try:
            await workflow.wait_condition(lambda: self.ready, timeout=timeout_s)
        except TimeoutError:
            return "late"
        return "ready"

    @workflow.signal
    def go(self) -> None:
        self.ready = True


def test_wait_condition_times_out_by_a_durable_timer() -> None:
    run = Run(ConditionWithTimeout, (2.5,))
    assert run.start() == ["start timer 1 2500"]
    assert run.tell(fired(1)) == ["complete"]
    assert run.result == "late"


def test_a_condition_that_becomes_true_cancels_its_timer() -> None:
    run = Run(ConditionWithTimeout, (2.5,))
    run.start()
    assert run.tell(signal("go")) == ["cancel timer 1", "complete"]
    assert run.result == "ready"


def test_a_condition_that_is_true_at_once_leaves_no_timer() -> None:
    run = Run(ConditionWithTimeout, (2.5,))
    assert run.start(signal("go")) == ["complete"]


@workflow.defn
class BadCondition:
    @workflow.run
    async def run(self) -> str:
        try:
            await workflow.wait_condition(lambda: 1 / 0 > 1)
        except ZeroDivisionError:
            return "raised where it was awaited"
        return ""


def test_a_condition_that_raises_raises_in_the_waiting_code() -> None:
    run = Run(BadCondition)
    assert run.start() == ["complete"]


@workflow.defn
class Cancelable:
    @workflow.run
    async def run(self, cancellation: str) -> str:
        try:
            return str(
                await workflow.execute_activity(
                    "a", start_to_close_timeout=5, cancellation_type=Cancellation(cancellation)
                )
            )
        except asyncio.CancelledError:
            await workflow.execute_activity("undo", start_to_close_timeout=5)
            raise


def test_try_cancel_tells_the_worker_and_goes_on_at_once() -> None:
    run = Run(Cancelable, ("try-cancel",))
    run.start()
    assert run.tell(cancel()) == ["cancel activity 1", "schedule 2 undo"]
    assert run.tell(canceled(1)) == []  # nobody waits for it any more
    assert run.tell(completed(2)) == ["canceled"]
    run.replay()


def test_wait_cancellation_completed_goes_on_when_the_activity_is_closed() -> None:
    run = Run(Cancelable, ("wait-cancellation-completed",))
    run.start()
    assert run.tell(cancel()) == ["cancel activity 1"]
    assert run.tell(cancel()) == []
    assert run.tell(canceled(1)) == ["schedule 2 undo"]


def test_wait_cancellation_completed_keeps_a_result_that_came_nevertheless() -> None:
    run = Run(Cancelable, ("wait-cancellation-completed",))
    run.start()
    run.tell(cancel())
    assert run.tell(completed(1, "paid")) == ["complete"]
    assert run.result == "paid"


def test_abandon_tells_nobody() -> None:
    run = Run(Cancelable, ("abandon",))
    run.start()
    assert run.tell(cancel()) == ["schedule 2 undo"]
    assert run.tell(completed(1, "ignored")) == []


def test_a_cancellation_that_comes_with_the_start_lets_run_begin() -> None:
    run = Run(Cancelable, ("try-cancel",))
    assert run.start(cancel()) == ["schedule 2 undo"]  # activity 1 was asked for and cancelled: elided


def test_cancel_before_the_result_wins() -> None:
    run = Run(Cancelable, ("try-cancel",))
    run.start()
    assert run.tell(cancel(), completed(1, "paid")) == ["schedule 2 undo"]


def test_a_result_before_the_cancel_counts() -> None:
    run = Run(Cancelable, ("try-cancel",))
    run.start()
    assert run.tell(completed(1, "paid"), cancel()) == ["complete"]


@workflow.defn
class CancelBeatsCondition:
    def __init__(self) -> None:
        self.ready = False

    @workflow.run
    async def run(self) -> str:
        await workflow.wait_condition(lambda: self.ready)
        return "ready"

    @workflow.signal
    def go(self) -> None:
        self.ready = True


def test_cancel_wins_over_a_condition_that_is_true_in_the_same_turn() -> None:
    run = Run(CancelBeatsCondition)
    run.start()
    assert run.tell(signal("go"), cancel()) == ["canceled"]


@workflow.defn
class Handles:
    @workflow.run
    async def run(self) -> str:
        first = workflow.start_activity("first", start_to_close_timeout=5)
        second = workflow.start_activity("second", start_to_close_timeout=5)
        first.cancel()
        timer = asyncio.create_task(asyncio.sleep(5))
        await asyncio.sleep(0)
        timer.cancel()
        try:
            await first
        except asyncio.CancelledError:
            return str(await second)
        return "not cancelled"


def test_what_is_asked_for_and_cancelled_in_one_turn_never_was() -> None:
    run = Run(Handles)
    assert run.start() == ["schedule 2 second"]
    assert run.tell(completed(2, "done")) == ["complete"]


@workflow.defn
class LateTimer:
    @workflow.run
    async def run(self) -> str:
        timer = asyncio.create_task(workflow.sleep(5))
        await workflow.execute_activity("a", start_to_close_timeout=5)
        timer.cancel()
        await workflow.execute_activity("b", start_to_close_timeout=5)
        return "done"


def test_a_timer_that_fires_after_it_was_cancelled_is_ignored() -> None:
    run = Run(LateTimer)
    assert run.start() == ["schedule 1 a", "start timer 1 5000"]
    assert run.tell(completed(1)) == ["schedule 2 b", "cancel timer 1"]
    assert run.tell(fired(1)) == []
    assert run.tell(completed(2)) == ["complete"]


@workflow.defn
class EndsFirst:
    @workflow.run
    async def run(self) -> str:
        background = asyncio.create_task(self.later())
        await asyncio.sleep(0)
        background.set_name("later")
        return "done"

    async def later(self) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await workflow.execute_activity("after the end", start_to_close_timeout=5)


def test_the_terminal_action_comes_last() -> None:
    run = Run(EndsFirst)
    assert run.start() == ["schedule 1 after the end", "complete"]
    assert run.instance.closed
    run.close()


@workflow.defn
class Failing:
    @workflow.run
    async def run(self) -> list[str]:
        found = []
        for name in ("a", "b", "c"):
            try:
                await workflow.execute_activity(name, start_to_close_timeout=timedelta(seconds=5))
            except ActivityFailure as failure:
                found.append(
                    f"{failure.activity_type} {failure.activity_id} {failure.attempt} {failure.retry_state} "
                    f"{type(failure.cause).__name__}"
                )
        return found


def test_what_an_activity_that_failed_raises() -> None:
    run = Run(Failing)
    run.start()
    run.tell(failed(1, attempt=2))
    run.tell(timed_out(2))
    run.tell(canceled(3))  # not by this code
    assert run.result == [
        "a 1 2 non-retryable-failure ApplicationError",
        f"b 2 3 timeout {TimeoutFailure.__name__}",
        f"c 3 1 cancel-requested {CanceledError.__name__}",
    ]
    run.replay()


@workflow.defn
class WideGather:
    @workflow.run
    async def run(self, width: int) -> int:
        results = await asyncio.gather(
            *[
                workflow.execute_activity("a", n, start_to_close_timeout=5, result_type=int)
                for n in range(width)
            ]
        )
        return sum(results)


@pytest.mark.parametrize("width", [3, 10_000])
def test_gather_schedules_in_the_order_of_its_arguments(width: int) -> None:
    run = Run(WideGather, (width,))
    assert run.start() == [f"schedule {n} a" for n in range(1, width + 1)]
    assert run.tell(*[completed(n, 1) for n in range(width, 0, -1)]) == ["complete"]
    assert run.result == width


def test_the_work_per_activity_does_not_grow_with_their_number() -> None:
    """Counts callbacks, not time: a gather of ten times as many runs ten times as many."""

    class Counting(deque):  # type: ignore[type-arg]
        calls = 0

        def append(self, handle: object) -> None:
            self.calls += 1
            super().append(handle)

    def callbacks(width: int) -> int:
        run = Run(WideGather, (width,))
        ready = run.instance.loop._ready = Counting()
        run.start()
        for number in range(1, width + 1):
            run.tell(completed(number, 1))
        return ready.calls

    assert callbacks(1_000) == pytest.approx(10 * callbacks(100), rel=0.1)
