"""The attempts of a worker, each a task of its own: run, free the slot, report until durable."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from orchestrator.activity.definition import ActivityDefinition
from orchestrator.codec.payloads import PayloadConverter
from orchestrator.errors import PayloadError, RecordRefused, Unavailable
from orchestrator.log.aio import AioLog
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.telemetry.traces import Traces
from orchestrator.worker.execution import Attempt, Stop
from orchestrator.worker.inbox import DeliveryKey, InboxRules, Returned, Verdict, key_of
from orchestrator.worker.reports import Report, Reports, refused_report

_log = logging.getLogger(__name__)

CLEANUP_S = 2.0
"""How long an activity may clean up after it was told to stop because the worker shuts down."""

LAST_REPORTS_S = 2.0
"""How long a worker that shuts down waits for the log to take its last reports."""

RETRY_FIRST_S, RETRY_MOST_S = 0.05, 2.0
"""Delays between attempts to reach a log that does not answer."""


class Meter(Protocol):
    """Is told what a worker does. It takes notes: that costs little, and never fails."""

    def opened(self, slots: int) -> None:
        """The worker begins; so many attempts may run at a time."""

    def began(self, task: ActivityTask) -> None:
        """An attempt runs."""

    def ended(self, task: ActivityTask, report: Report | None, took_s: float) -> None:
        """An attempt has ended; ``report`` is None if nobody waits for one any more, or there is none."""


class Unmetered:
    """Nobody wants to know."""

    def opened(self, slots: int) -> None:
        """Nothing."""

    def began(self, task: ActivityTask) -> None:
        """Nothing."""

    def ended(self, task: ActivityTask, report: Report | None, took_s: float) -> None:
        """Nothing."""


class Attempts:
    """What a worker runs and reports, over all its incarnations.

    Args:
        log: where reports go.
        definitions: the activities by name.
        slots: threads for sync activities.
        converter: how arguments and results are encoded.
        identity: who reports.
        on_freed: called when an attempt has ended.
        meter: is told of each attempt.
        traces: is told of each attempt, and may have a span current while it runs.
    """

    def __init__(
        self,
        log: AioLog,
        *,
        definitions: Mapping[str, ActivityDefinition],
        slots: int,
        converter: PayloadConverter,
        identity: str,
        on_freed: Callable[[], None],
        meter: Meter,
        traces: Traces,
    ) -> None:
        self._log = log
        self._definitions = definitions
        self._converter = converter
        self._reports = Reports(identity)
        self._on_freed = on_freed
        self._meter, self._traces = meter, traces
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="activity")
        self._running: dict[DeliveryKey, Attempt] = {}
        self._jobs: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many attempts run."""
        return len(self._running)

    def obey(self, verdict: Verdict, rules: InboxRules) -> None:
        """Do what the rules of an incarnation say; they are told what becomes of each delivery."""
        for task in verdict.start:
            self.start(task, rules)
        for returned in verdict.give_back:
            self.give_back(returned, rules)
        for task in verdict.canceled:
            self._spawn(self._report(task, self._reports.canceled(task, 0), key_of(task), rules))
        for key in verdict.cancel:
            self._running[key].stop(Stop.CANCEL_REQUESTED)

    def start(self, task: ActivityTask, rules: InboxRules) -> None:
        """Run an attempt, then report it."""
        attempt = Attempt(task, self._definitions.get(task.activity_type), self._loop)
        self._running[attempt.key] = attempt
        self._spawn(self._run(attempt, rules))

    def give_back(self, returned: Returned, rules: InboxRules) -> None:
        """Report that a delivery was not started."""
        task = returned.task
        self._spawn(self._report(task, self._reports.returned(*returned), key_of(task), rules))

    def stop_all(self, why: Stop) -> None:
        """Tell all attempts to stop."""
        for attempt in self._running.values():
            attempt.stop(why)

    def stop_overdue(self) -> None:
        """Tell attempts to stop that are long past their timeout."""
        now = self._loop.time()
        for attempt in self._running.values():
            if now > attempt.overdue_at:
                attempt.stop(Stop.OVERDUE)

    async def finish(self, grace_s: float) -> None:
        """Let attempts end and reports be sent; after ``grace_s`` stop them, then leave them behind."""
        await self._jobs_end(grace_s)
        self.stop_all(Stop.SHUTDOWN)
        await self._jobs_end(CLEANUP_S)
        for attempt in self._running.values():
            _log.warning(
                "activity %r did not stop within %.0f s and is left behind",
                attempt.task.activity_type,
                CLEANUP_S,
            )
            attempt.abandon()
        await self._jobs_end(LAST_REPORTS_S)
        if self._jobs:
            _log.warning("%d reports were not taken by the log; the attempts count as lost", len(self._jobs))

    async def close(self) -> None:
        """Send nothing more. Threads that still run are left to themselves."""
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _jobs_end(self, timeout_s: float) -> None:
        deadline = self._loop.time() + timeout_s
        while self._jobs and (left_s := deadline - self._loop.time()) > 0:
            await asyncio.wait(self._jobs, timeout=left_s)

    async def _run(self, attempt: Attempt, rules: InboxRules) -> None:
        key, task, begun_s = attempt.key, attempt.task, self._loop.time()
        report: Report | None = None
        self._meter.began(task)
        try:
            with self._traces.attempt(task) as told:
                report = await attempt.run(self._threads, self._converter, self._reports)
                told.reported(report)
        finally:
            del self._running[key]
            rules.ended(key)
            self._on_freed()
            self._meter.ended(task, report, self._loop.time() - begun_s)
        if report is None:
            rules.reported(key)
        else:
            await self._report(task, report, key, rules)

    async def _report(self, task: ActivityTask, report: Report, key: DeliveryKey, rules: InboxRules) -> None:
        try:
            await self._send(report)
        except (RecordRefused, PayloadError) as refusal:
            failure = refused_report(report, task, str(refusal))
            _log.error("%s", failure.message)
            await self._send(self._reports.failed(task, report.started_time_ms, failure))
        rules.reported(key)

    async def _send(self, report: Report) -> None:
        """Send until durable."""
        for delay_s in delays():
            try:
                await self._log.send(report)
            except Unavailable as error:
                _log.warning("a report was not acknowledged and is sent again: %s", error)
                await asyncio.sleep(delay_s)
            else:
                return

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        job = self._loop.create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._job_ended)

    def _job_ended(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            _log.error("a report could not be sent; the attempt will time out", exc_info=error)


def delays() -> Iterator[float]:
    """Seconds to wait between attempts to reach the log, without end."""
    delay_s = RETRY_FIRST_S
    while True:
        yield delay_s
        delay_s = min(2 * delay_s, RETRY_MOST_S)
