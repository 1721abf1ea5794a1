"""Plain asyncio on the deterministic loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from workflow_kit import Run, cancel, completed, fired, signal

from orchestrator import workflow
from orchestrator.workflow.instance import WorkflowCodeError


def activity(name: str) -> Any:
    return workflow.execute_activity(name, start_to_close_timeout=60)


@workflow.defn
class Sleeps:
    @workflow.run
    async def run(self) -> list[float]:
        times = [workflow.time()]
        await asyncio.sleep(0)
        await asyncio.sleep(1.0005)
        times.append(workflow.time())
        await workflow.sleep(0, summary="at once")
        return times


def test_asyncio_sleep_is_a_durable_timer_and_zero_is_a_yield() -> None:
    run = Run(Sleeps)
    assert run.start() == ["start timer 1 1000"]
    assert run.tell(fired(1), after_ms=1_000) == ["start timer 2 0"]
    assert run.tell(fired(2)) == ["complete"]
    first, second = run.result
    assert second - first == 1.0
    run.replay()


@workflow.defn
class NegativeSleep:
    @workflow.run
    async def run(self) -> None:
        await asyncio.sleep(-1)
        await workflow.sleep(-1)


def test_a_negative_workflow_sleep_is_a_bug_and_says_so() -> None:
    with pytest.raises(WorkflowCodeError, match=r"the duration of workflow\.sleep is -1"):
        Run(NegativeSleep).start()


@workflow.defn
class Deadline:
    @workflow.run
    async def run(self) -> str:
        try:
            async with asyncio.timeout(0.1 + 0.2):
                await activity("slow")
        except TimeoutError:
            await activity("compensate")
            return "compensated"
        return "in time"


def test_timeout_cancels_the_activity_and_raises_timeout_error() -> None:
    run = Run(Deadline)
    assert run.start() == ["start timer 1 300", "schedule 1 slow"]
    assert run.tell(fired(1)) == ["cancel activity 1", "schedule 2 compensate"]
    assert run.tell(completed(2)) == ["complete"]
    assert run.result == "compensated"
    run.replay()


def test_timeout_that_is_not_needed_is_cancelled() -> None:
    run = Run(Deadline)
    run.start()
    assert run.tell(completed(1)) == ["cancel timer 1", "complete"]


def test_a_workflow_cancellation_passes_through_a_timeout() -> None:
    run = Run(Deadline)
    run.start()
    assert run.tell(cancel()) == ["cancel activity 1", "cancel timer 1", "canceled"]


@workflow.defn
class WaitFor:
    @workflow.run
    async def run(self) -> str:
        try:
            return str(await asyncio.wait_for(activity("slow"), 10))
        except TimeoutError:
            return "late"


def test_wait_for() -> None:
    run = Run(WaitFor)
    assert set(run.start()) == {"start timer 1 10000", "schedule 1 slow"}
    assert run.tell(fired(1)) == ["cancel activity 1", "complete"]
    assert run.result == "late"
    run = Run(WaitFor)
    run.start()
    run.tell(completed(1, "fast"))
    assert run.result == "fast"


@workflow.defn
class Primitives:
    """A lock, a semaphore, a queue, an event and a condition, each with somebody who waits."""

    def __init__(self) -> None:
        self.trace: list[str] = []
        self.lock = asyncio.Lock()
        self.semaphore = asyncio.Semaphore(2)
        self.queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        self.event = asyncio.Event()
        self.condition = asyncio.Condition()

    async def worker(self, name: str) -> None:
        async with self.semaphore, self.lock:
            await activity(name)
            self.trace.append(name)
        await self.queue.put(name)

    @workflow.run
    async def run(self) -> list[str]:
        workers = [asyncio.create_task(self.worker(name)) for name in ("a", "b", "c")]
        for _ in workers:
            self.trace.append("got " + await self.queue.get())
        await self.event.wait()
        async with self.condition:
            await self.condition.wait_for(lambda: "end" in self.trace)
        return self.trace

    @workflow.signal
    def go(self) -> None:
        self.event.set()

    @workflow.signal
    async def end(self) -> None:
        self.trace.append("end")
        async with self.condition:
            self.condition.notify_all()


def test_locks_semaphores_queues_events_and_conditions() -> None:
    run = Run(Primitives)
    assert run.start() == ["schedule 1 a"]
    assert run.tell(completed(1)) == ["schedule 2 b"]
    assert run.tell(completed(2)) == ["schedule 3 c"]
    assert run.tell(completed(3)) == []
    assert run.tell(signal("go")) == []
    assert run.tell(signal("end")) == ["complete"]
    assert run.result == ["a", "got a", "b", "got b", "c", "got c", "end"]
    run.replay()


@workflow.defn
class Shield:
    @workflow.run
    async def run(self) -> str:
        inner = asyncio.ensure_future(activity("must end"))
        try:
            await asyncio.shield(inner)
        except asyncio.CancelledError:
            await inner
            raise
        return "done"


def test_shield_keeps_the_activity() -> None:
    run = Run(Shield)
    run.start()
    assert run.tell(cancel()) == []
    assert run.tell(completed(1)) == ["canceled"]


@workflow.defn
class Generator:
    def __init__(self) -> None:
        self.trace: list[str] = []

    async def numbers(self) -> AsyncIterator[int]:
        try:
            for number in range(10):
                await activity(f"n{number}")
                yield number
        finally:
            await activity("clean up")
            self.trace.append("finalized")

    @workflow.run
    async def run(self) -> list[str]:
        async for number in self.numbers():
            if number == 1:
                break
        await workflow.wait_condition(lambda: bool(self.trace))
        return self.trace


def test_async_generators_are_finalized_on_the_loop() -> None:
    run = Run(Generator)
    run.start()
    run.tell(completed(1))
    assert run.tell(completed(2)) == ["schedule 3 clean up"]
    assert run.tell(completed(3)) == ["complete"]
    run.replay()


@workflow.defn
class Forbidden:
    @workflow.run
    async def run(self, name: str) -> None:
        loop: Any = asyncio.get_running_loop()
        if name == "to_thread":
            await asyncio.to_thread(print)
        elif name == "open_connection":
            await asyncio.open_connection("localhost", 1)
        elif name == "create_subprocess_shell":
            await asyncio.create_subprocess_shell("true")
        else:
            getattr(loop, name)(None, None)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("to_thread", "use an activity"),
        ("open_connection", "use an activity"),
        ("create_subprocess_shell", "use an activity"),
        ("add_signal_handler", "use @workflow.signal"),
        ("call_soon_threadsafe", "use an activity"),
        ("stop", "await instead"),
    ],
)
def test_what_cannot_be_replayed_is_refused(name: str, instead: str) -> None:
    with pytest.raises(WorkflowCodeError, match=f"NotDeterministic.*{instead}"):
        Run(Forbidden, (name,)).start()


@workflow.defn
class Callbacks:
    @workflow.run
    async def run(self, how: str) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(self.bad if how == "undeclared" else self.declared)
        await asyncio.sleep(5)

    def bad(self) -> None:
        raise ValueError("in a callback")

    def declared(self) -> None:
        raise TimeoutError("declared")


def test_exceptions_in_callbacks_follow_the_rule_of_run() -> None:
    with pytest.raises(WorkflowCodeError, match="in a callback"):
        Run(Callbacks, ("undeclared",)).start()
    assert Run(Callbacks, ("declared",)).start() == ["start timer 1 5000", "fail declared"]


@workflow.defn
class NeverAwaited:
    @workflow.run
    async def run(self) -> None:
        task = asyncio.create_task(self.bad())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        del task

    async def bad(self) -> None:
        raise ValueError("nobody looks")


def test_an_exception_that_nobody_awaits_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    run = Run(NeverAwaited)
    assert run.start() == ["complete"]
    (record,) = caplog.records
    assert "never retrieved" in record.getMessage()
    assert vars(record)["workflow_id"] == "wf"
    assert "nobody looks" in (caplog.text)


def test_the_thread_is_left_as_it_was() -> None:
    Run(Sleeps).start()
    assert asyncio._get_running_loop() is None


async def test_an_activation_inside_another_loop_leaves_that_loop_running() -> None:
    outer, task = asyncio.get_running_loop(), asyncio.current_task()
    run = Run(Sleeps)
    run.start()
    run.tell(fired(1))
    assert asyncio.get_running_loop() is outer
    assert asyncio.current_task() is task
    await asyncio.sleep(0)
