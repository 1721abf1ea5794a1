"""What only Kafka has of reading: records that are gone, consumers that fail, positions that are ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from orchestrator.codec import avro
from orchestrator.errors import LogError
from orchestrator.log.kafka import aio_reader, intake
from tests.kafka.opened import SOON_S, messages, numbers, opened, task
from tests.kafka.proxy import Api, Fault, Proxy, Side
from tests.kafka.raw import RawLog
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]  # a busy machine starts a broker in half a minute


class TestPositions:
    async def test_records_that_are_gone_end_the_stream_and_are_counted(
        self, kafka: Shared, proxy: Proxy, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(proxy.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            with proxy.rule(Side.RESPONSE, Fault.HOLD, api=Api.FETCH) as held:
                await asyncio.to_thread(task, raw, inbox, 0)
                await asyncio.to_thread(held.wait)  # at most the first is on its way
                for number in range(1, 6):
                    await asyncio.to_thread(task, raw, inbox, number)
                place = TopicPartition(raw.full("tasks"), inbox.partition, 6)
                for deleted in raw.admin.delete_records([place]).values():
                    await asyncio.to_thread(deleted.result, SOON_S)
            with pytest.raises(LogError, match=r"records are gone"):
                await numbers(inbox, 6)
            assert log.lost_records >= 5
            again = await log.open_inbox("me")
            task(raw, again, 7)
            assert await numbers(again, 1) == [7]

    async def test_a_topic_that_was_made_anew_ends_the_stream(
        self,
        kafka: Shared,
        namespace: str,
        raws: Callable[[str, str], RawLog],
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            for number in range(3):
                task(raw, inbox, number)
            assert await numbers(inbox, 3) == [0, 1, 2]
            for deleted in raw.admin.delete_topics([raw.full("tasks")]).values():
                deleted.result(SOON_S)
            raw.create_topics()
            with pytest.raises(LogError, match=r"made anew"):
                await numbers(inbox, 1)

    async def test_a_consumer_that_failed_is_replaced_and_nothing_is_missed(
        self,
        kafka: Shared,
        namespace: str,
        raws: Callable[[str, str], RawLog],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(aio_reader, "AGAIN_S", 0.05)
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            task(raw, inbox, 1)
            assert await numbers(inbox, 1) == [1]
            monkeypatch.setattr(intake, "BATCH_RECORDS", 0)  # which the client refuses by an exception
            task(raw, inbox, 2)
            while not messages(caplog):
                assert await inbox.next(0.05) == []
            monkeypatch.setattr(intake, "BATCH_RECORDS", 500)
            task(raw, inbox, 3)
            assert await numbers(inbox, 2) == [2, 3]
        assert messages(caplog) == ["reading from Kafka failed; it begins again where it was"]

    async def test_a_record_that_a_decoder_fails_on_is_skipped_alone(
        self,
        kafka: Shared,
        namespace: str,
        raws: Callable[[str, str], RawLog],
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        decode = avro.decode

        def failing(*arguments: Any) -> Any:
            found = decode(*arguments)
            if getattr(found, "activity_id", None) == 2:
                raise ZeroDivisionError
            return found

        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            monkeypatch.setattr(avro, "decode", failing)
            for number in (1, 2, 3):
                task(raw, inbox, number)
            assert await numbers(inbox, 2) == [1, 3]
        assert messages(caplog) == ["a record was skipped: it could not be handed out"]

    async def test_a_partition_is_read_from_its_end_by_who_comes_after_all_have_left(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        async with opened(kafka.bootstrap, namespace) as log:
            first = await log.open_inbox("me")
            task(raw, first, 1)
            assert await numbers(first, 1) == [1]
            given_up = asyncio.create_task(log.open_inbox("me"))
            await first.close()
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            task(raw, first, 2)
            second, third = await asyncio.gather(log.open_inbox("me"), log.open_inbox("me"))
            assert second.partition != third.partition, "each takes the partition that is used least"
            [mine] = [inbox for inbox in (second, third) if inbox.partition == first.partition]
            assert mine.offset == 2
            task(raw, mine, 3)
            assert await numbers(mine, 1) == [3]
        assert log.lost_records == 0

    async def test_a_loop_that_is_busy_gets_what_it_missed(
        self, kafka: Shared, namespace: str, raws: Callable[[str, str], RawLog]
    ) -> None:
        raw = raws(kafka.bootstrap, namespace)
        raw.create_topics()
        count = 4 * intake.BATCH_RECORDS
        async with opened(kafka.bootstrap, namespace) as log:
            inbox = await log.open_inbox("me")
            for number in range(count):  # the loop stands still meanwhile
                task(raw, inbox, number)
            assert await numbers(inbox, count) == list(range(count))
