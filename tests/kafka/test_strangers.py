"""What comes from elsewhere: topics that refuse, records on wrong partitions, repeats, garbage."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from orchestrator.client.handle import WorkflowHandle
from orchestrator.codec import avro
from orchestrator.errors import QueryFailed, WorkflowNotFound
from orchestrator.log.topics import COMMANDS, DEAD_LETTERS, TASKS, WORKERS
from orchestrator.protocol.commands import SignalWorkflow, StartWorkflow
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import DeadLetter
from tests.conformance.log.kafka_harness import make_topic
from tests.kafka.broker import USERS
from tests.kafka.cluster import PARTITIONS, PATIENCE_S, Cluster, cluster, until
from tests.kafka.flows import Slow, Teller
from tests.kafka.shared import Shared
from tests.simulation import checkers

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("strangers")]

INNOCENTS = 100

GARBAGE = b"\xff\xfe garbage"


async def is_blocked(told: WorkflowHandle[Any], because: str = "") -> bool:
    """Whether a run is, for a reason in which these words are, as a query of it says."""
    try:
        await told.query(Teller.words)
    except QueryFailed as error:
        return because in str(error)
    return False


async def is_running(told: WorkflowHandle[Any]) -> bool:
    """Whether it is not blocked."""
    return not await is_blocked(told)


async def is_there(handle: WorkflowHandle[Any]) -> bool:
    """Whether a workflow was started."""
    try:
        await handle.query(Teller.words)
    except WorkflowNotFound:
        return False
    return True


async def test_topics_that_refuse_block_one_run_each(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    """Among a hundred runs that have nothing to do with it, and go on."""
    login = "\n".join(
        (
            "security.protocol=SASL_PLAINTEXT",
            "sasl.mechanism=PLAIN",
            "sasl.username=alice",
            f"sasl.password={USERS['alice']}",
        )
    )
    (tmp_path / "alice.properties").write_text(login)
    good, small, denied, missing = (
        f"users-{namespace}-{kind}" for kind in ("good", "small", "denied", "missing")
    )
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        admin = made.raw.admin
        make_topic(admin, NewTopic(good, 1, 1))
        make_topic(admin, NewTopic(small, 1, 1, config={"max.message.bytes": "64"}))
        make_topic(admin, NewTopic(denied, 1, 1))
        allow_only("bob", denied, admin)
        await made.start(
            made.coordinator(
                "coordinator",
                "--kafka-config",
                str(tmp_path / "alice.properties"),
                bootstrap=kafka.secured_bootstrap,
            )
        )
        start = made.client.start_workflow
        culprits = [start(Teller.run, topic, id=topic) for topic in (small, denied, missing)]
        crowd = [start(Teller.run, good if n % 10 == 0 else "", id=f"t-{n}") for n in range(INNOCENTS)]
        refused, innocent = await asyncio.gather(asyncio.gather(*culprits), asyncio.gather(*crowd))
        for told, because in zip(refused, ("max.message.bytes", "denied", "missing"), strict=True):
            await until(partial(is_blocked, told, because), f"a run is blocked for {because!r}")
        await asyncio.gather(*(told.signal(Teller.tell, "word") for told in innocent))
        await asyncio.gather(*(told.signal(Teller.end) for told in innocent))
        assert await asyncio.gather(*(told.result(PATIENCE_S) for told in innocent)) == [1] * INNOCENTS
        make_topic(admin, NewTopic(missing, 1, 1))
        told = refused[-1]
        await until(partial(is_running, told), "the run goes on when its topic is there")
        await told.signal(Teller.end)
        assert await told.result(PATIENCE_S) == 0
        for told, because in zip(refused[:-1], ("max.message.bytes", "denied"), strict=True):
            assert await is_blocked(told, because), "nobody has changed that"


def allow_only(user: str, topic: str, admin: AdminClient) -> None:
    """Nobody else has a right on the topic then."""
    kind, pattern = ResourceType.TOPIC, ResourcePatternType.LITERAL
    binding = AclBinding(kind, topic, pattern, f"User:{user}", "*", AclOperation.ALL, AclPermissionType.ALLOW)
    for done in admin.create_acls([binding]).values():
        done.result(PATIENCE_S)


async def test_commands_on_wrong_partitions_are_forwarded_and_decided_once(
    kafka: Shared, namespace: str, tmp_path: Path
) -> None:
    """Producers have partitioners of their own, and repeat what they do not know to have arrived."""
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        two = [made.coordinator(f"coordinator-{n}") for n in range(2)]
        await made.start(*two)
        await made.shared_by(two)
        ids = [f"astray-{n}" for n in range(5 * PARTITIONS)]
        for id in ids:
            home = partition_of(id, PARTITIONS)
            command = StartWorkflow(workflow_id=id, workflow_type="Teller", request_id=f"{id}/start")
            poke = SignalWorkflow(workflow_id=id, signal_name="end")  # its request id is where it stands
            for partition in (home + 1, home, home + 2):
                made.raw.append(COMMANDS, partition % PARTITIONS, avro.encode(command), key=id.encode())
            handle = made.client.get_workflow_handle(id)
            await until(partial(is_there, handle), f"{id} is started")
            made.raw.append(COMMANDS, (home + 3) % PARTITIONS, avro.encode(poke), key=id.encode())
        results = [made.client.get_workflow_handle(id).result(PATIENCE_S) for id in ids]
        assert await asyncio.gather(*results) == [0] * len(ids)
        facts = (await made.autopsy()).facts
        assert len(facts.runs) == len(ids), "a run for each id, and no second one"
        for check in (checkers.one_effect_per_request, checkers.no_command_twice, checkers.marks_cover):
            check(facts)


async def test_answers_hold_over_a_takeover_with_an_empty_folder(
    kafka: Shared, namespace: str, tmp_path: Path
) -> None:
    """What was decided is not decided again, and a repeat is answered as the original was."""
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        first = made.coordinator("coordinator-1")
        await made.start(first, made.worker("worker"))
        before = await story(made)
        with pytest.raises(WorkflowNotFound):
            await made.client.get_workflow_handle("late").signal(Teller.tell, "too early", request_id="early")
        late = await made.client.start_workflow(Teller.run, id="late")
        await made.kill(first)
        await made.start(made.coordinator("coordinator-2"))
        assert await story(made) == before
        assert await late.query(Teller.words) == [], "a rejected command was decided again"
        facts = (await made.autopsy()).facts
        assert sorted(turns[0].workflow_id for turns in facts.runs.values()) == [
            "late",
            "slow",
            "used",
            "used",
        ]
        for check in (checkers.one_effect_per_request, checkers.no_command_twice, checkers.marks_cover):
            check(facts)


async def story(made: Cluster) -> list[object]:
    """Some requests, always the same ones, and all that is answered to them."""
    start, answers = made.client.start_workflow, []
    one = await start(Teller.run, id="used", request_id="one")
    await one.signal(Teller.tell, "a", request_id="a")
    await one.signal(Teller.end, request_id="end")
    answers.append(await one.result(PATIENCE_S))
    again = await start(Teller.run, id="used", request_id="one")
    two = await start(Teller.run, id="used", request_id="two")
    await two.signal(Teller.tell, "b", request_id="b")
    await two.signal(Teller.tell, "b", request_id="b")
    await two.signal(Teller.tell, "a", request_id="a")
    answers.append(await two.query(Teller.words))
    slow = await start(Slow.run, 2, 0.1, id="slow", request_id="slow")
    answers.append(await slow.result(PATIENCE_S))
    return [*answers, one.run_id, again.run_id, two.run_id, slow.run_id]


async def test_what_cannot_be_read_is_set_aside(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    async with cluster(kafka.bootstrap, namespace, tmp_path) as made:
        coordinator, worker = made.coordinator("coordinator"), made.worker("worker")
        await made.start(coordinator, worker)
        slow = await made.client.start_workflow(Slow.run, 40, 0.2, id="slow")
        await until(lambda: "\n" in (tmp_path / "ledger").read_text(), "an activity runs")
        task = next(record for p in range(32) for record in made.raw.read(TASKS, p))
        incarnation, inbox = task.headers["worker"], task.partition
        for partition in range(PARTITIONS):
            made.raw.append(COMMANDS, partition, GARBAGE)
        made.raw.append(WORKERS, 0, GARBAGE)
        for partition in range(32):
            made.raw.append(TASKS, partition, GARBAGE, headers={"worker": incarnation})
        assert len(await slow.result(PATIENCE_S)) == 40
        letters = [
            avro.decode(record.value or b"", DEAD_LETTERS) for record in made.raw.read(DEAD_LETTERS, 0)
        ]
        assert all(isinstance(letter, DeadLetter) and letter.value == GARBAGE for letter in letters)
        assert sorted((letter.topic, letter.partition) for letter in letters) == sorted(
            [*((COMMANDS, p) for p in range(PARTITIONS)), (WORKERS, 0), (TASKS, inbox)]
        )
        assert all("expected" in letter.reason for letter in letters)
        assert "skipped a record on tasks-" in worker.log.read_text()
