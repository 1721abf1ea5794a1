"""Clients' and workers' side of a broker, for tests of what only Kafka has."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from orchestrator.codec import avro
from orchestrator.log.aio import Inbox
from orchestrator.log.kafka.aio import KafkaAioLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.protocol.tasks import CancelTask
from tests.kafka.raw import RawLog

SOON_S = 100.0
"""For what should happen at once; a test that waits longer has failed."""


@asynccontextmanager
async def opened(
    bootstrap: str, namespace: str, options: Mapping[str, str] | None = None
) -> AsyncIterator[KafkaAioLog]:
    settings = KafkaSettings(bootstrap=bootstrap, namespace=namespace, options=options or {})
    log = KafkaAioLog(settings)
    try:
        yield log
    finally:
        await log.close()


def task(raw: RawLog, inbox: Inbox, number: int) -> None:
    found = CancelTask(worker="me", run_id="r", activity_id=number, attempt=1, dispatch=1)
    raw.append("tasks", inbox.partition, avro.encode(found), headers={"worker": b"me"})


def threads() -> list[str]:
    """Those of ours that speak to Kafka."""
    return [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith(("kafka-intake", "kafka-client"))
    ]


async def numbers(inbox: Inbox, count: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(SOON_S):
        while len(found) < count:
            found += [delivered.task.activity_id for delivered in await inbox.next(SOON_S)]
    return found


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What a user of this package reads."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith("orchestrator")
    ]
