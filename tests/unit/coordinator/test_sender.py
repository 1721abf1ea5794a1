"""What leaves beside history, and never arrives: its partition claims anew and sends it again, alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.coordinator.ownership import ACK_DEADLINE_S
from orchestrator.log.topics import COMMANDS, COMMANDS_TX, DEAD_LETTERS, HISTORY, TASKS
from orchestrator.protocol.events import WorkflowCompleted, WorkflowStarted
from orchestrator.protocol.ids import partition_of
from orchestrator.protocol.records import Claim, Turn
from orchestrator.protocol.tasks import ActivityTask

from .kit import Bench, report, start

WIDTH = 3


@workflow.defn(name="Order")
class Order:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("pay", start_to_close_timeout=3_600)


class Wide(Bench):
    """Three partitions, and a worker that answers at once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Order, partitions=WIDTH)
        self.answered = 0
        self.starts = 0
        self.beat()

    def begin_run(self, home: int, *, on: int | None = None, topic: str = COMMANDS) -> str:
        """Somebody starts a workflow of a partition; perhaps on the wrong one."""
        self.starts += 1
        ids = (f"{self.starts}-{n}" for n in range(1_000))
        workflow_id = next(found for found in ids if partition_of(found, WIDTH) == home)
        command = start(workflow_id, f"start {workflow_id}", reply_to=None)
        self.land(topic, avro.encode(command), partition=home if on is None else on)
        return workflow_id

    def live(self, seconds: float, load: tuple[int, ...] = ()) -> None:
        """Time passes; the worker works, and partitions under load get a run each second."""
        for tick in range(round(seconds * 10)):
            self.runtime.elapsed_s += 0.1
            if tick % 10 == 0:
                self.land_beat(slots=1_000)
                for number in load:
                    self.begin_run(number)
            for task in self.all(TASKS)[self.answered :]:
                self.answered += 1
                if isinstance(task, ActivityTask):
                    home = partition_of(task.workflow_id, WIDTH)
                    self.land(COMMANDS, avro.encode(report(task)), partition=home)
            self.step()

    def claims_of(self, number: int) -> int:
        return sum(isinstance(record, Claim) for record in self.all(HISTORY, number))

    def events_of(self, workflow_id: str) -> list[type]:
        number = partition_of(workflow_id, WIDTH)
        turns = [record for record in self.all(HISTORY, number) if isinstance(record, Turn)]
        return [type(event) for turn in turns if turn.workflow_id == workflow_id for event in turn.events]


@pytest.fixture
def wide(tmp_path: Path) -> Wide:
    return Wide(tmp_path)


@pytest.fixture
def swallow(wide: Wide, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """The next record on a topic never leaves, and nobody is told."""

    def swallow_next(topic: str) -> None:
        appender = wide.coordinator._sender._appender
        original, left = appender.append, [topic]

        def append(to: str, *args: Any, **options: Any) -> None:
            if to in left:
                left.remove(to)
            else:
                original(to, *args, **options)

        monkeypatch.setattr(appender, "append", append)

    return swallow_next


def test_a_task_without_acknowledgement_moves_its_partition_alone(
    wide: Wide, swallow: Callable[[str], None]
) -> None:
    swallow(TASKS)
    stalled = wide.begin_run(0)
    wide.live(0.5)
    wide.live(ACK_DEADLINE_S + 2, load=(1, 2))
    assert [wide.claims_of(number) for number in range(WIDTH)] == [2, 1, 1]
    assert wide.events_of(stalled)[-1] is WorkflowCompleted
    wide.live(2 * ACK_DEADLINE_S, load=(1, 2))
    assert [wide.claims_of(number) for number in range(WIDTH)] == [2, 1, 1]


@pytest.mark.parametrize("topic", [COMMANDS, COMMANDS_TX])
def test_a_command_that_is_forwarded_in_vain_is_forwarded_again(
    wide: Wide, swallow: Callable[[str], None], topic: str
) -> None:
    swallow(COMMANDS)
    found = wide.begin_run(2, on=1, topic=topic)
    wide.live(ACK_DEADLINE_S - 1)
    assert wide.events_of(found) == []
    wide.live(3)
    assert wide.events_of(found)[0] is WorkflowStarted
    assert [wide.claims_of(number) for number in range(WIDTH)] == [1, 2, 1]
    wide.live(2 * ACK_DEADLINE_S)
    assert [wide.claims_of(number) for number in range(WIDTH)] == [1, 2, 1]


def test_a_dead_letter_that_never_arrives_is_written_again(
    wide: Wide, swallow: Callable[[str], None]
) -> None:
    swallow(DEAD_LETTERS)
    wide.land(COMMANDS, b"garbage", partition=1)
    wide.live(ACK_DEADLINE_S + 2)
    assert [(letter.topic, letter.partition) for letter in wide.letters] == [(COMMANDS, 1)]
    assert [wide.claims_of(number) for number in range(WIDTH)] == [1, 2, 1]


def test_an_outage_costs_a_claim_and_nothing_else(wide: Wide) -> None:
    """Longer than anybody waits for an acknowledgement."""
    before, wrong = wide.begin_run(0), wide.begin_run(2, on=1)
    wide.step(2)
    wide.cluster.stalled = True
    wide.live(ACK_DEADLINE_S + 5)
    wide.cluster.stalled = False
    wide.live(5)
    assert wide.events_of(before)[-1] is WorkflowCompleted
    assert wide.events_of(wrong)[-1] is WorkflowCompleted
