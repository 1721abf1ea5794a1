import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from orchestrator import activity
from orchestrator.activity.definition import by_name
from orchestrator.codec.payloads import DEFAULT, PayloadConverter
from orchestrator.errors import (
    ApplicationError,
    CanceledError,
    ConfigError,
    LogError,
    RecordRefused,
    Unavailable,
    UsageError,
)
from orchestrator.log.aio import DeliveredTask
from orchestrator.protocol.commands import (
    CompleteActivity,
    FailActivity,
    ReportActivityCanceled,
    ReturnActivity,
)
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.protocol.values import MAX_PAYLOAD_BYTES, FailureKind, Payload
from orchestrator.telemetry.metrics import WorkerMetrics
from orchestrator.telemetry.traces import Untraced
from orchestrator.worker import Worker
from orchestrator.worker.attempts import Attempts, Unmetered
from orchestrator.worker.inbox import REMEMBER_MS, InboxRules
from orchestrator.worker.metering import MetricsMeter
from tests.unit.memory_log import MemoryLog
from tests.unit.worker.tasks import NOW_MS, activity_task, cancel_task


@activity.defn
async def echo(value: int = 0) -> int:
    return value


@activity.defn
def in_thread(value: int) -> str:
    return f"{value} for {activity.info().workflow_id} in {threading.current_thread().name[:8]}"


@activity.defn
async def too_large() -> bytes:
    return b"x" * (MAX_PAYLOAD_BYTES + 1)


def raising(error: BaseException, *, sync: bool) -> Callable[[], Any]:
    if sync:

        @activity.defn(name="boom")
        def boom() -> None:
            raise error

        return boom

    @activity.defn(name="boom")
    async def async_boom() -> None:
        raise error

    return async_boom


class Gate:
    """An activity that runs until the test lets it end; also after it was told to stop, if ``stubborn``."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.told_to_stop = asyncio.Event()
        self._stubborn = stubborn

    @activity.defn
    async def wait(self) -> str:
        self.entered.set()
        while not self.open.is_set():
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.told_to_stop.set()
                if not self._stubborn:
                    raise
        return "done"


class ThreadGate:
    def __init__(self) -> None:
        self.entered = threading.Event()

    @activity.defn
    def wait(self) -> None:
        self.entered.set()
        assert activity.wait_for_cancelled_sync(20.0)
        raise CanceledError("stopped by its flag")


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


async def start(log: MemoryLog, *args: Any, **fields: Any) -> ActivityTask:
    """Deliver a task to the worker that runs."""
    task = activity_task(*args, **({"worker": await log.worker()} | fields))
    log.deliver(task)
    return task


@pytest.mark.parametrize(
    ("name", "result"), [("echo", 7), ("in_thread", "7 for order-1 in activity")], ids=["async", "sync"]
)
async def test_an_activity_runs_and_its_result_is_reported(log: MemoryLog, name: str, result: Any) -> None:
    async with Worker(log, activities=[echo, in_thread], identity="me"):
        task = await start(log, 7, activity_type=name, attempt=2, dispatch=3)
        report = await log.command(CompleteActivity)
    assert report.result == DEFAULT.to_payload(result)
    assert (report.workflow_id, report.run_id, report.activity_id) == ("order-1", "run-1", 1)
    assert (report.attempt, report.dispatch, report.worker, report.identity) == (2, 3, task.worker, "me")
    assert report.request_id == "run-1/1/2/3"
    assert report.started_time_ms > 0


async def test_beats_tell_what_the_worker_is_and_what_it_does(log: MemoryLog) -> None:
    gate = Gate()
    worker = Worker(log, activities=[echo, gate.wait], task_queue=["a", "b"], max_concurrent_activities=5)
    async with worker:
        await start(log, activity_type="wait")
        await log.until(lambda: log.worker_beats()[-1].running == 1)
        gate.open.set()
        await log.until(lambda: log.worker_beats()[-1].running == 0)
    first, *_, last = log.worker_beats()
    assert (first.task_queues, first.slots, first.running, first.inbox) == (("a", "b"), 5, 0, 3)
    assert first.activity_types == ("echo", "wait")
    assert first.regular
    assert (last.stopped, last.draining, last.inbox_offset) == (True, True, first.inbox_offset + 1)
    assert [beat.number for beat in log.worker_beats()] == list(range(1, last.number + 1))


@pytest.mark.parametrize("sync", [False, True])
@pytest.mark.parametrize(
    ("error", "kind", "failure_type"),
    [
        (ValueError("no"), FailureKind.APPLICATION, "ValueError"),
        (ApplicationError("no", type="Declined", non_retryable=True), FailureKind.APPLICATION, "Declined"),
        (SystemExit(3), FailureKind.APPLICATION, "SystemExit"),
        (KeyboardInterrupt(), FailureKind.APPLICATION, "KeyboardInterrupt"),
        (asyncio.CancelledError(), FailureKind.APPLICATION, "CancelledError"),
        (CanceledError("of something else"), FailureKind.APPLICATION, "CanceledError"),
        (StopIteration(), FailureKind.APPLICATION, "RuntimeError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
async def test_whatever_an_activity_raises_is_a_failure_and_the_worker_goes_on(
    log: MemoryLog, error: BaseException, kind: FailureKind, failure_type: str, sync: bool
) -> None:
    async with Worker(log, activities=[echo, raising(error, sync=sync)]):
        await start(log, activity_type="boom")
        report = await log.command(FailActivity)
        await start(log, 1, activity_id=2)
        await log.command(CompleteActivity)
    assert (report.failure.kind, report.failure.type) == (kind, failure_type)
    assert report.failure.non_retryable is (failure_type == "Declined")


async def test_the_stack_of_a_failure_begins_in_the_activity(log: MemoryLog) -> None:
    async with Worker(log, activities=[raising(ValueError("no"), sync=True)]):
        await start(log, activity_type="boom")
        report = await log.command(FailActivity)
    first_line, *_ = report.failure.stack.splitlines()
    assert "test_worker.py" in first_line


@pytest.mark.parametrize(
    ("args", "fields", "failure_type", "message", "non_retryable"),
    [
        ((), {"activity_type": "unheard-of"}, "UnknownActivity", "no activity 'unheard-of'", False),
        (("seven",), {}, "PayloadError", "cannot be read as int", False),
        ((1, 2), {}, "DefinitionError", "2 argument", False),
        ((), {"activity_type": "too_large"}, "PayloadError", f"{MAX_PAYLOAD_BYTES + 1} bytes", True),
    ],
)
async def test_what_cannot_be_run_or_sent_is_a_clear_failure(
    log: MemoryLog, args: Any, fields: Any, failure_type: str, message: str, non_retryable: bool
) -> None:
    async with Worker(log, activities=[echo, too_large]):
        await start(log, *args, **fields)
        report = await log.command(FailActivity)
    assert (report.failure.type, report.failure.non_retryable) == (failure_type, non_retryable)
    assert message in report.failure.message


async def test_a_repeated_delivery_runs_once(log: MemoryLog) -> None:
    gate = Gate()
    async with Worker(log, activities=[gate.wait, echo]):
        task = await start(log, activity_type="wait")
        log.deliver(task)
        gate.open.set()
        await log.command(CompleteActivity)
        log.deliver(task)
        await start(log, 5, activity_id=2)
        assert (await log.command(CompleteActivity)).activity_id == 2
    assert len(log.commands) == 2


async def test_a_surplus_is_returned_at_once(log: MemoryLog) -> None:
    gate = Gate()
    async with Worker(log, activities=[gate.wait], max_concurrent_activities=1):
        await start(log, activity_type="wait")
        await start(log, activity_type="wait", activity_id=2)
        returned = await log.command(ReturnActivity)
        gate.open.set()
        await log.command(CompleteActivity)
    assert (returned.activity_id, returned.reason) == (2, "no-slot")


async def test_a_report_is_sent_until_it_is_durable(log: MemoryLog) -> None:
    log.fail_next("send", Unavailable("broker away"), Unavailable("still away"))
    async with Worker(log, activities=[echo]):
        await start(log, 7)
        assert (await log.command(CompleteActivity)).result == DEFAULT.to_payload(7)
    assert len(log.commands) == 1


async def test_a_report_that_the_log_refuses_becomes_a_failure_that_says_so(log: MemoryLog) -> None:
    log.fail_next("send", RecordRefused("too large for the topic"))
    async with Worker(log, activities=[echo]):
        await start(log, 7)
        report = await log.command(FailActivity)
    assert report.failure.non_retryable
    assert "too large for the topic" in report.failure.message
    assert report.request_id == "run-1/1/1/1"


async def test_a_slot_is_used_again_when_its_attempt_has_ended(log: MemoryLog) -> None:
    async with Worker(log, activities=[echo], max_concurrent_activities=1):
        for number in range(1, 4):
            await start(log, activity_id=number)
            await log.command(CompleteActivity)


async def test_the_rules_are_told_when_a_report_is_durable(log: MemoryLog) -> None:
    rules = InboxRules("w1", slots=1)
    attempts = Attempts(
        log,
        definitions=by_name([echo]),
        slots=1,
        converter=DEFAULT,
        identity="",
        on_freed=lambda: None,
        meter=Unmetered(),
        traces=Untraced(),
    )
    attempts.obey(rules.receive([DeliveredTask(activity_task(), NOW_MS)], may_start=True), rules)
    await attempts.finish(20.0)
    await attempts.close()
    stranger = activity_task(worker="w0")
    rules.receive([DeliveredTask(stranger, NOW_MS + 2 * REMEMBER_MS)], may_start=True)
    assert rules.remembered == 0


async def test_cancellation_stops_an_async_activity_but_not_its_report(log: MemoryLog) -> None:
    cancelling: list[int] = []

    def note(command: Any) -> None:
        job = asyncio.current_task()
        assert job is not None
        cancelling.append(job.cancelling())

    log.on_send = note
    gate = Gate()
    async with Worker(log, activities=[gate.wait]):
        task = await start(log, activity_type="wait")
        await gate.entered.wait()
        log.deliver(cancel_task(task))
        await log.command(ReportActivityCanceled)
    assert len(log.commands) == 1
    assert cancelling == [0]


async def test_a_cancellation_that_comes_with_its_task_stops_it_before_it_begins(log: MemoryLog) -> None:
    gate = Gate()
    async with Worker(log, activities=[gate.wait]):
        task = await start(log, activity_type="wait")
        log.deliver(cancel_task(task))
        await log.command(ReportActivityCanceled)
    assert not gate.entered.is_set()


async def test_a_cancellation_that_comes_after_the_end_is_ignored(log: MemoryLog) -> None:
    async with Worker(log, activities=[echo]):
        task = await start(log)
        await log.command(CompleteActivity)
        log.deliver(cancel_task(task))
        await start(log, activity_id=2)
        await log.command(CompleteActivity)


async def test_cancellation_reaches_a_thread_by_its_flag(log: MemoryLog) -> None:
    gate = ThreadGate()
    async with Worker(log, activities=[gate.wait]):
        task = await start(log, activity_type="wait")
        await asyncio.to_thread(gate.entered.wait, 20.0)
        log.deliver(cancel_task(task))
        await log.command(ReportActivityCanceled)


async def test_an_activity_may_complete_although_it_was_cancelled(log: MemoryLog) -> None:
    gate = Gate(stubborn=True)
    async with Worker(log, activities=[gate.wait]):
        task = await start(log, activity_type="wait")
        await gate.entered.wait()
        log.deliver(cancel_task(task))
        await asyncio.sleep(0)
        gate.open.set()
        await log.command(CompleteActivity)


async def test_nothing_starts_before_the_first_beat_was_read_back(log: MemoryLog) -> None:
    ran = asyncio.Event()

    @activity.defn
    async def mark() -> None:
        ran.set()

    worker = Worker(log, activities=[mark])
    async with worker:
        await log.until(lambda: bool(log.beat_streams))
        log.beat_streams[0].paused = True
        await start(log, activity_type="mark")
        await log.until(lambda: log.worker_beats()[-1].running == 1)
        assert not ran.is_set(), "held, and shown as a slot that is taken"
        log.beat_streams[0].resume()
        await log.command(CompleteActivity)


async def test_a_worker_that_was_declared_dead_goes_on_as_another_incarnation(log: MemoryLog) -> None:
    gate = Gate()
    async with Worker(log, activities=[gate.wait, echo]):
        await start(log, activity_type="wait")
        await gate.entered.wait()
        first = await log.worker()
        for _ in range(6):
            log.coordinator_beat()
        second = await log.worker(2)
        await gate.told_to_stop.wait()
        await start(log, 3, worker=second, activity_id=2)
        report = await log.command(CompleteActivity)
    assert (report.worker, report.activity_id) == (second, 2), "of the attempt that was given up: no report"
    assert first != second
    assert log.inboxes[0].closed
    assert log.beat_streams[0].closed


async def test_slots_of_attempts_that_were_given_up_stay_taken_until_they_end(log: MemoryLog) -> None:
    gate = Gate(stubborn=True)
    async with Worker(log, activities=[gate.wait], max_concurrent_activities=1):
        await start(log, activity_type="wait")
        await gate.entered.wait()
        log.inboxes[0].fail(LogError("the inbox is gone"))
        second = await log.worker(2)
        assert log.worker_beats()[-1].running == 1
        await start(log, worker=second, activity_type="wait", activity_id=2)
        assert (await log.command(ReturnActivity)).reason == "no-slot"
        gate.open.set()
        await log.command(CompleteActivity)


async def test_a_stream_that_was_unavailable_for_a_moment_goes_on(log: MemoryLog) -> None:
    async with Worker(log, activities=[echo]):
        await log.worker()
        log.inboxes[0].fail(Unavailable("timeout"))
        log.beat_streams[0].fail(Unavailable("timeout"))
        await start(log, 1)
        await log.command(CompleteActivity)
    assert len(log.inboxes) == 1


async def test_a_worker_waits_for_a_log_that_does_not_answer_yet(log: MemoryLog) -> None:
    log.fail_next("open_inbox", Unavailable("no"))
    log.fail_next("open_beats", Unavailable("no"))
    async with Worker(log, activities=[echo]):
        await start(log, 1)
        await log.command(CompleteActivity)


async def test_a_beat_that_failed_is_followed_by_the_next(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.worker.incarnation.BEAT_INTERVAL_S", 0.01)
    log.fail_next("beat", Unavailable("no"), Unavailable("no"))
    async with Worker(log, activities=[echo]):
        await start(log, 1)
        await log.command(CompleteActivity)
    assert log.worker_beats()[0].number == 3


async def test_an_attempt_that_is_long_past_its_timeout_frees_its_slot_and_reports_nothing(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.worker.execution.OVERDUE_AFTER_S", 0.0)
    monkeypatch.setattr("orchestrator.worker.incarnation.BEAT_INTERVAL_S", 0.01)
    gate = Gate()
    async with Worker(log, activities=[gate.wait], max_concurrent_activities=1):
        await start(log, activity_type="wait", start_to_close_ms=1)
        await log.until(lambda: log.worker_beats()[-1].running == 1)
        await log.until(lambda: log.worker_beats()[-1].running == 0)
    assert not log.commands


# --- shutting down ---


async def test_shutdown_returns_what_comes_and_lets_finish_what_runs(log: MemoryLog) -> None:
    gate = Gate()
    worker = Worker(log, activities=[gate.wait])
    run = asyncio.create_task(worker.run())
    await start(log, activity_type="wait")
    await gate.entered.wait()
    worker.shutdown()
    await log.until(lambda: log.worker_beats()[-1].draining)
    await start(log, activity_type="wait", activity_id=2)
    assert (await log.command(ReturnActivity)).reason == "draining"
    assert not run.done()
    gate.open.set()
    assert (await log.command(CompleteActivity)).activity_id == 1
    await run
    assert log.worker_beats()[-1].stopped
    assert not log.closed, "it is the caller's"


async def test_what_was_under_way_when_an_idle_worker_drains_is_returned(log: MemoryLog) -> None:
    worker = Worker(log, activities=[echo])
    run = asyncio.create_task(worker.run())
    await log.worker()
    worker.shutdown()
    await log.until(lambda: log.worker_beats()[-1].draining)
    await start(log)
    assert (await log.command(ReturnActivity)).reason == "draining"
    await run


async def test_after_the_grace_attempts_are_stopped_and_fail_as_lost(log: MemoryLog) -> None:
    gate, thread_gate = Gate(), ThreadGate()
    sync_wait = activity.ActivityDefinition("sync", thread_gate.wait, is_async=False)
    async with Worker(log, activities=[gate.wait, sync_wait], graceful_shutdown_timeout=0):
        await start(log, activity_type="wait")
        await start(log, activity_type="sync", activity_id=2)
        await gate.entered.wait()
        await asyncio.to_thread(thread_gate.entered.wait, 20.0)
    reports = [await log.command(FailActivity) for _ in range(2)]
    assert {report.activity_id for report in reports} == {1, 2}
    for report in reports:
        assert report.failure.kind is FailureKind.WORKER_LOST
        assert report.failure.next_retry_delay_ms == 0


async def test_a_thread_that_does_not_stop_is_left_behind_with_a_report(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.worker.attempts.CLEANUP_S", 0.0)
    entered, end = threading.Event(), threading.Event()

    @activity.defn
    def deaf() -> None:
        entered.set()
        end.wait(20.0)

    async with Worker(log, activities=[deaf], graceful_shutdown_timeout=0):
        await start(log, activity_type="deaf")
        await asyncio.to_thread(entered.wait, 20.0)
    end.set()
    assert (await log.command(FailActivity)).failure.kind is FailureKind.WORKER_LOST


async def test_a_cancelled_run_says_goodbye_too(log: MemoryLog) -> None:
    gate = Gate()
    run = asyncio.create_task(Worker(log, activities=[gate.wait]).run())
    await start(log, activity_type="wait")
    await gate.entered.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert (await log.command(FailActivity)).failure.kind is FailureKind.WORKER_LOST
    assert log.worker_beats()[-1].stopped


async def test_shutdown_does_not_wait_for_a_log_that_never_answers(log: MemoryLog) -> None:
    log.fail_next("open_inbox", *[Unavailable("no")] * 1_000)
    async with Worker(log, activities=[echo]):
        pass
    assert not log.beats


# --- what is refused ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activities": []}, "no activities"),
        ({"max_concurrent_activities": 0}, "at least one slot"),
        ({"task_queue": ""}, "at least one queue"),
        ({"task_queue": []}, "at least one queue"),
        ({"graceful_shutdown_timeout": -1}, "graceful_shutdown_timeout is -1"),
        ({"activities": [len]}, "not an activity"),
    ],
)
def test_options_that_cannot_be_are_refused(log: MemoryLog, options: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Worker(log, **({"activities": [echo]} | options))


async def test_a_worker_runs_once(log: MemoryLog) -> None:
    worker = Worker(log, activities=[echo])
    async with worker:
        await log.worker()
    with pytest.raises(UsageError, match="make a new Worker"):
        await worker.run()


@pytest.mark.parametrize(
    ("address", "message"),
    [("kafka://broker:9092/topic", "expected one like"), ("here", "expected one like")],
)
async def test_an_address_that_is_not_understood_is_an_error_at_once(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        async with Worker(address, activities=[echo]):
            pass


async def test_attempts_are_measured_by_what_they_report(log: MemoryLog) -> None:
    registry, gate = CollectorRegistry(), Gate()

    def ended(activity_type: str, outcome: str) -> float | None:
        labels = {"activity_type": activity_type, "outcome": outcome}
        return registry.get_sample_value("orchestrator_activity_duration_seconds_count", labels)

    worker = Worker(
        log,
        activities=[gate.wait, raising(ValueError("no"), sync=False)],
        max_concurrent_activities=7,
        meter=MetricsMeter(WorkerMetrics(registry)),
    )
    async with worker:
        await start(log, activity_type="boom")
        await log.command(FailActivity)
        await start(log, activity_type="wait", activity_id=2)
        await gate.entered.wait()
        assert registry.get_sample_value("orchestrator_worker_slots") == 7
        assert registry.get_sample_value("orchestrator_worker_running") == 1
        gate.open.set()
        await log.command(CompleteActivity)
    assert (ended("boom", "failed"), ended("wait", "completed")) == (1, 1)
    assert registry.get_sample_value("orchestrator_worker_running") == 0


async def test_a_worker_is_ready_while_its_beats_come_back(log: MemoryLog) -> None:
    worker = Worker(log, activities=[echo])
    assert not worker.ready
    async with worker:
        await start(log)
        await log.command(CompleteActivity)
        assert worker.ready
    assert not worker.ready


class BrokenConverter(PayloadConverter):
    def to_payload(self, value: Any) -> Payload:
        raise RuntimeError("the key server is away")


async def test_an_attempt_that_cannot_be_reported_does_not_count_as_running(
    log: MemoryLog, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    meter = MetricsMeter(WorkerMetrics(registry))
    async with Worker(log, activities=[echo], converter=BrokenConverter(), meter=meter):
        await start(log, 7)
        await log.until(lambda: "the key server is away" in caplog.text)
        assert registry.get_sample_value("orchestrator_worker_running") == 0
    labels = {"activity_type": "echo", "outcome": "dropped"}
    assert registry.get_sample_value("orchestrator_activity_duration_seconds_count", labels) == 1
