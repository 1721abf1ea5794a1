"""What cannot be understood is set aside, with the reason, and the partition goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from orchestrator import workflow
from orchestrator.api.embedded import Engine
from orchestrator.client.client import Client
from orchestrator.codec import avro
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.topics import COMMANDS, DEAD_LETTERS
from orchestrator.protocol.commands import StartWorkflow
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import DeadLetter

PARTITION = 1
MAX_KEPT_BYTES = 512 * 1024
"""Of a value in a dead letter: the letter itself must fit into a record."""

_WHOLE = avro.encode(StartWorkflow(workflow_id="w", workflow_type="Echo"))

UNDECODABLE = {
    "garbage": b"\xff\xfe garbage",
    "truncated Avro": _WHOLE[: len(_WHOLE) // 2],
    "Avro of another kind": avro.encode(
        DeadLetter(topic="t", partition=0, offset=0, reason="a letter is no command")
    ),
    "an unknown schema": b"\x00\x00\x00\xff\xff" + _WHOLE[5:],
    "JSON of an unknown command": b'{"command": "MakeCoffee", "workflow_id": "w"}',
    "JSON that ends": b'{"command": "StartWorkflow", "workflow_id": ',
    "JSON without a workflow id": b'{"command": "StartWorkflow", "workflow_id": "", "workflow_type": "Echo"}',
    "nothing": b"",
    "a tombstone": None,
    "1 MiB of zeros": bytes(1024 * 1024 - 100),
    "1 MiB of JSON": b'{"command": "' + b"x" * (1024 * 1024 - 100) + b'"}',
}


@workflow.defn
class Echo:
    @workflow.run
    async def run(self, number: int) -> int:
        await asyncio.sleep(0.001)
        return number


async def test_undecodable_commands_become_dead_letters(tmp_path: Path) -> None:
    engine = await asyncio.to_thread(Engine, tmp_path, [Echo])
    await engine.wait_ready()
    aio = engine.aio()
    ids = [id for n in range(100) if partition_of(id := f"e-{n}", engine.log.partitions) == PARTITION]
    offsets: dict[str, int] = {}
    async with Client(aio) as client:
        member = engine.log.member()
        appender = member.appender(ordered=True)
        for name, value in UNDECODABLE.items():
            appender.append(COMMANDS, PARTITION, name.encode(), value, token=name)
            offsets |= {d.token: d.offset for d in (await asyncio.to_thread(member.poll, 10)).deliveries}
            number = len(offsets)
            assert await client.execute_workflow(Echo.run, number, id=ids[number]) == number
        assert offsets.keys() == UNDECODABLE.keys()
        assert min(offsets.values()) >= 0, "the log took them all"
        appender.abandon()
        member.close()
    await aio.close()
    await asyncio.to_thread(engine.close)
    assert engine.error is None

    for _ in range(2):
        expect_one_letter_each(tmp_path, offsets)
        again = await asyncio.to_thread(Engine, tmp_path, [Echo])  # which sets nothing aside twice
        await again.wait_ready()
        aio = again.aio()
        async with Client(aio) as client:
            assert await client.execute_workflow(Echo.run, 7, id=ids[0]) == 7
        await aio.close()
        await asyncio.to_thread(again.close)


def expect_one_letter_each(folder: Path, offsets: dict[str, int]) -> None:
    with EmbeddedLog(folder) as log:
        records = log.read(DEAD_LETTERS, 0, 0, 1_000)
    letters: list[DeadLetter] = [avro.decode(record.value or b"", DEAD_LETTERS) for record in records]
    places = [(letter.topic, letter.partition, letter.offset) for letter in letters]
    assert sorted(places) == sorted((COMMANDS, PARTITION, offset) for offset in offsets.values())
    for record, letter in zip(records, letters, strict=True):
        name = letter.key.decode()
        assert letter.offset == offsets[name]
        assert record.key == f"{COMMANDS}-{PARTITION}-{letter.offset}".encode()
        assert letter.value == (UNDECODABLE[name] or b"")[:MAX_KEPT_BYTES]
        assert len(letter.reason) > 10, name
        assert len(letter.reason) < 2_000, name
        assert letter.time_ms > 0
