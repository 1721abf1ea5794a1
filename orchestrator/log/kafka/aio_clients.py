"""Starts and stops aiokafka's clients, whatever state they and the brokers are in.

What is worked around here is of aiokafka 0.14, and each is held by a test: a start that is cancelled loses a
connection; a producer's stop waits for brokers that are away, and if its batches are failed before, its own
task may fail on them, which it reports by an exception in a callback; a consumer's stop may end, cancelled,
before it has closed its connections.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError

CANCEL_S = 2.0
"""How long a start that is not wanted any more may take to end: brokers that answer take milliseconds."""


async def start(starting: Coroutine[Any, Any, None]) -> None:
    """Start a client; who is cancelled meanwhile waits a moment for the end of it all the same."""
    task = asyncio.ensure_future(starting)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task], timeout=CANCEL_S)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


async def stop_producer(producer: AIOKafkaProducer, patience_s: float) -> None:
    """Stop a producer. After ``patience_s``, batches that no broker has taken are failed."""
    try:
        with suppress(Exception):
            async with asyncio.timeout(patience_s):
                await producer.flush()
    finally:
        _fail(producer)
        await _apart(producer.stop())
        await producer.client.close()


def _fail(producer: AIOKafkaProducer) -> None:
    """Fail all batches; nobody has to look at how the task that sends them ends, or at who waited for one."""
    sender, accumulator = producer._sender, producer._message_accumulator
    if sender.sender_task is not None:
        sender.sender_task.remove_done_callback(sender._fail_all)
        sender.sender_task.add_done_callback(_look)
    batches = [*accumulator._pending_batches, *itertools.chain(*accumulator._batches.values())]
    accumulator.fail_all(KafkaError("the producer was given up"))
    for batch in batches:
        _look(batch.future)


def _look(ended: asyncio.Future[Any]) -> None:
    """Otherwise asyncio reports an exception that nobody has looked at."""
    if not ended.cancelled():
        ended.exception()


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer."""
    await _apart(consumer.stop())
    await consumer._client.close()


async def _apart(stopping: Coroutine[Any, Any, None]) -> None:
    """Run it in a task of its own: its cancellation, which nobody asked for, must not become the caller's."""
    await asyncio.gather(asyncio.ensure_future(stopping), return_exceptions=True)
