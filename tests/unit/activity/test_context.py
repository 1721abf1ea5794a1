import asyncio
import contextvars
import logging
import threading

import pytest

from orchestrator import activity
from orchestrator.activity.context import CURRENT, ActivityInfo, Cancellation, Context
from orchestrator.errors import UsageError


def context(attempt: int = 1, loop: asyncio.AbstractEventLoop | None = None) -> Context:
    info = ActivityInfo(
        workflow_id="order-1",
        run_id="run-1",
        workflow_type="Order",
        activity_id=7,
        activity_type="charge",
        task_queue="default",
        attempt=attempt,
        scheduled_time_ms=1,
        started_time_ms=2,
    )
    return Context(info, Cancellation(loop or asyncio.get_running_loop()))


async def test_outside_of_an_activity_the_error_says_so() -> None:
    assert not activity.in_activity()
    for ask in (activity.info, activity.is_cancelled, activity.wait_for_cancelled_sync):
        with pytest.raises(UsageError, match="only inside an activity"):
            ask()
    with pytest.raises(UsageError, match="only inside an activity"):
        await activity.wait_for_cancelled()


async def test_the_idempotency_key_is_the_same_for_all_attempts() -> None:
    keys = {context(attempt).info.idempotency_key for attempt in (1, 2, 3)}
    assert keys == {"run-1/7"}


async def test_info_is_known_in_tasks_and_threads_of_the_activity() -> None:
    CURRENT.set(context())
    assert activity.in_activity()
    assert activity.info().workflow_id == "order-1"
    assert (await asyncio.to_thread(activity.info)).workflow_id == "order-1"


async def test_cancellation_wakes_who_waits_on_the_loop_and_in_threads() -> None:
    mine = context()
    CURRENT.set(mine)
    assert not activity.is_cancelled()
    on_loop = asyncio.create_task(activity.wait_for_cancelled())
    waiting = threading.Event()

    def in_thread() -> bool:
        assert not activity.wait_for_cancelled_sync(0.0)
        waiting.set()
        return activity.wait_for_cancelled_sync(20.0)

    thread = asyncio.create_task(asyncio.to_thread(contextvars.copy_context().run, in_thread))
    await asyncio.to_thread(waiting.wait, 20.0)
    assert not on_loop.done()
    mine.cancellation.set()
    assert await thread
    await on_loop
    assert activity.is_cancelled()
    await activity.wait_for_cancelled()
    assert activity.wait_for_cancelled_sync()


async def test_a_waiter_that_was_cancelled_is_not_woken() -> None:
    mine = context()
    CURRENT.set(mine)
    waiter = asyncio.create_task(activity.wait_for_cancelled())
    await asyncio.sleep(0)
    waiter.cancel()
    mine.cancellation.set()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_log_records_carry_the_attempt(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestrator.activity")
    activity.logger.info("before")
    CURRENT.set(context(attempt=3))
    activity.logger.info("charging", extra={"cents": 5})
    before, charging = caplog.records
    assert not hasattr(before, "workflow_id")
    assert (charging.workflow_id, charging.activity_type, charging.attempt, charging.cents) == (  # type: ignore[attr-defined]
        "order-1",
        "charge",
        3,
        5,
    )
