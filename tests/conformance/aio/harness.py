"""One harness per adapter: the port under test, and the hand of a coordinator on the same log."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import httpx

from orchestrator.api.app import create_app
from orchestrator.api.backend import Backend
from orchestrator.api.reads import ThreadedReader
from orchestrator.codec import avro
from orchestrator.log.aio import AioLog
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.embedded_aio import EmbeddedAioLog
from orchestrator.log.http import HttpLog
from orchestrator.log.kafka.aio import KafkaAioLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.port import Record
from orchestrator.protocol.tasks import CancelTask, CoordinatorBeat, Reply
from orchestrator.view.store_reader import StoreReader
from tests.kafka.raw import RawLog

PARTITIONS = 4
"""Of commands, on every log."""


class Harness(ABC):
    """A log with its asyncio side as :attr:`port`."""

    port: AioLog

    @abstractmethod
    async def append(
        self, topic: str, partition: int, value: bytes, headers: Mapping[str, bytes] | None = None
    ) -> None:
        """Append a record as a coordinator does."""

    @abstractmethod
    async def end(self, topic: str, partition: int) -> int:
        """The offset after the last record."""

    @abstractmethod
    async def read(self, topic: str, partition: int) -> list[Record]:
        """All records of a partition."""

    @abstractmethod
    async def close(self) -> None: ...

    async def task(self, partition: int, worker: str, number: int = 1) -> None:
        task = CancelTask(worker=worker, run_id="r", activity_id=number, attempt=1, dispatch=1)
        await self.append("tasks", partition, avro.encode(task), {"worker": worker.encode()})

    async def reply(self, partition: int, client: str, request_id: str) -> None:
        reply = Reply(client_id=client, request_id=request_id)
        await self.append("replies", partition, avro.encode(reply), {"client": client.encode()})

    async def coordinator_beat(self) -> CoordinatorBeat:
        beat = CoordinatorBeat(coordinator="c", identity="", number=1, partitions=(0,))
        await self.append("workers", 0, avro.encode(beat))
        return beat

    async def commands(self) -> dict[int, list[Record]]:
        return {partition: await self.read("commands", partition) for partition in range(PARTITIONS)}


class EmbeddedHarness(Harness):
    def __init__(self, folder: Path) -> None:
        self._log = EmbeddedLog(folder)
        self._member = self._log.member()
        self._appender = self._member.appender(ordered=False)
        self._aio = EmbeddedAioLog(self._log)
        self.port = self._aio

    async def append(
        self, topic: str, partition: int, value: bytes, headers: Mapping[str, bytes] | None = None
    ) -> None:
        self._appender.append(topic, partition, b"", value, headers=headers)
        self._member.poll(0)

    async def end(self, topic: str, partition: int) -> int:
        return self._member.end(topic, partition)

    async def read(self, topic: str, partition: int) -> list[Record]:
        return self._member.read(topic, partition, 0, 10_000)

    async def close(self) -> None:
        await self._aio.close()
        self._log.close()


class HttpHarness(EmbeddedHarness):
    """The embedded log, spoken to over HTTP without a network."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._backend = Backend(self._aio, ThreadedReader(StoreReader(list)))
        transport = httpx.ASGITransport(create_app(self._backend))
        self.port = HttpLog("http://127.0.0.1:7350", transport=transport)

    async def close(self) -> None:
        await self.port.close()
        await self._backend.close()
        await super().close()


class KafkaHarness(Harness):
    def __init__(self, bootstrap: str, namespace: str) -> None:
        self._raw = RawLog(bootstrap, namespace)
        self._raw.create_topics(partitions=PARTITIONS)
        self.port = KafkaAioLog(KafkaSettings(bootstrap=bootstrap, namespace=namespace))

    async def append(
        self, topic: str, partition: int, value: bytes, headers: Mapping[str, bytes] | None = None
    ) -> None:
        await asyncio.to_thread(self._raw.append, topic, partition, value, headers=headers)

    async def end(self, topic: str, partition: int) -> int:
        return await asyncio.to_thread(self._raw.end, topic, partition)

    async def read(self, topic: str, partition: int) -> list[Record]:
        return await asyncio.to_thread(self._raw.read, topic, partition)

    async def close(self) -> None:
        await self.port.close()
        self._raw.close()
