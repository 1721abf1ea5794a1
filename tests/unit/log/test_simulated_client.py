from __future__ import annotations

from random import Random

import pytest

from orchestrator.codec import avro
from orchestrator.errors import LogError
from orchestrator.log.port import Outcome
from orchestrator.log.simulated import Faults, SimulatedCluster
from orchestrator.log.simulated_client import SimulatedClientLog
from orchestrator.protocol.commands import SignalWorkflow
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.tasks import CancelTask, Reply, WorkerBeat


class World:
    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.cluster = SimulatedCluster(Random(1), lambda: self.now_ms, faults=Faults.none())
        self.member = self.cluster.member("coordinator")
        self.out = self.member.appender(ordered=False)

    def pass_time(self, *parties: SimulatedClientLog) -> list[Outcome]:
        """Long enough for everything to arrive."""
        self.member.poll(0)
        for party in parties:
            party.poll()
        self.now_ms += 1_000
        self.member.poll(0)
        return [delivery.outcome for party in parties for delivery in party.poll()]


def test_commands_and_beats_are_sent_by_poll() -> None:
    world = World()
    client = SimulatedClientLog(world.cluster, "client")
    command = SignalWorkflow(workflow_id="w", signal_name="s")
    beat = WorkerBeat(
        worker="w", identity="", task_queues=(), slots=1, running=0, inbox=0, inbox_offset=0, number=1
    )
    beats = client.open_beats()
    client.send(command, token="c")
    client.beat(beat)
    assert world.pass_time(client) == [Outcome.DELIVERED] * 2
    [record] = world.member.read("commands", partition_of("w", 4), 0, 10)
    assert avro.decode(record.value or b"") == command
    assert [delivered.beat for delivered in beats.take()] == [beat]


def test_tasks_and_replies_reach_whom_they_are_for() -> None:
    world = World()
    client = SimulatedClientLog(world.cluster, "client")
    inbox, replies = client.open_inbox("w"), client.open_replies("c")
    task = CancelTask(worker="w", run_id="r", activity_id=1, attempt=1, dispatch=1)
    reply = Reply(client_id="c", request_id="r")
    for worker, name in (("w", "c"), ("other", "other")):
        world.out.append(
            "tasks", inbox.partition, b"", avro.encode(task), headers={"worker": worker.encode()}
        )
        world.out.append(
            "replies", replies.partition, b"", avro.encode(reply), headers={"client": name.encode()}
        )
    world.pass_time(client)
    assert [delivered.task for delivered in inbox.take()] == [task]
    assert replies.take() == [reply]
    assert inbox.offset == world.member.end("tasks", inbox.partition)


def test_the_dead_send_nothing() -> None:
    world = World()
    client = SimulatedClientLog(world.cluster, "client")
    client.send(SignalWorkflow(workflow_id="w", signal_name="s"))
    client.die()
    with pytest.raises(LogError, match="is dead"):
        client.poll()
    world.pass_time()
    assert world.member.end("commands", partition_of("w", 4)) == 0
