"""Starts and stops aiokafka's clients, whatever state they and the brokers are in.

What is worked around here is of aiokafka 0.14, and each is held by a test: a start that is cancelled loses a
connection; a producer's stop waits for brokers that are away; a consumer's stop may end, cancelled, before it
has closed its connections.
"""

from __future__ import annotations

import asyncio
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
        producer._message_accumulator.fail_all(KafkaError("the producer was given up"))
        await _apart(producer.stop())
        await producer.client.close()


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop a consumer."""
    await _apart(consumer.stop())
    await consumer._client.close()


async def _apart(stopping: Coroutine[Any, Any, None]) -> None:
    """Run it in a task of its own: its cancellation, which nobody asked for, must not become the caller's."""
    await asyncio.gather(asyncio.ensure_future(stopping), return_exceptions=True)
