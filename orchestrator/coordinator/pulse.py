"""Beats: what this process tells the others every second, and what it hears of them.

Its own beats come back with the log's time, so they also tell whether this machine's clock is right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from msgspec.structs import replace

from orchestrator.codec import avro
from orchestrator.coordinator.clock_check import ClockCheck
from orchestrator.coordinator.dispatch import Dispatcher
from orchestrator.coordinator.meter import Meter
from orchestrator.coordinator.ownership import ACK_DEADLINE_S
from orchestrator.coordinator.partition import Partition
from orchestrator.coordinator.runtime import EngineClock, Runtime
from orchestrator.coordinator.sender import Sender
from orchestrator.log.port import Record
from orchestrator.log.topics import WORKERS
from orchestrator.protocol.tasks import Beat, CoordinatorBeat
from orchestrator.telemetry.versions import version

BEAT_S = 1.0
"""Between two beats: time is counted in them, so whoever was not heard of for five is dead."""

BEAT = object()
"""The token of a beat."""


def first_beat(incarnation: str, identity: str, workflow_types: Iterable[str]) -> CoordinatorBeat:
    """Who a coordinator is, for processes and for people, and what it can run."""
    return CoordinatorBeat(
        coordinator=incarnation,
        identity=identity,
        number=0,
        partitions=(),
        workflow_types=tuple(sorted(workflow_types)),
        version=version(),
    )


class Pulse:
    """The beats of one coordinator.

    Args:
        me: what is the same in each of its beats, see :func:`first_beat`.
        sender: sends them.
        dispatcher: is told of the others', and knows how long the queues are.
        runtime, clock: the machine's time, and the engine's.
        meter: is told with each beat how things are.
    """

    def __init__(
        self,
        me: CoordinatorBeat,
        sender: Sender,
        dispatcher: Dispatcher,
        runtime: Runtime,
        clock: EngineClock,
        *,
        meter: Meter,
    ) -> None:
        self.clock_check = ClockCheck()
        self._me, self._sender, self._dispatcher = me, sender, dispatcher
        self._runtime, self._clock, self._meter = runtime, clock, meter
        self._count = 0
        self._next_s = 0.0
        self._answer_s = 0.0
        """Until then the answer to the last beat is awaited."""

    @property
    def due_s(self) -> float:
        """When the next beat is due, by the monotonic clock. It waits for the answer to the last one.

        Beats are counted as time: those of an outage, landing at once, would mean that workers whose own
        beats had no chance are dead.
        """
        return max(self._next_s, self._answer_s)

    def beat_if_due(self, partitions: Collection[Partition]) -> None:
        """Tell how things are, once per second."""
        now_s = self._runtime.monotonic_s()
        if now_s >= self.due_s:
            self._next_s = now_s + BEAT_S
            self._answer_s = now_s + ACK_DEADLINE_S
            self.beat(partitions)

    def beat(self, partitions: Collection[Partition], *, stopped: bool = False) -> None:
        """Tell how things are now; ``stopped``: for the last time."""
        self._count += 1
        backlogs = self._dispatcher.backlogs()
        self._meter.beat(partitions, backlogs, self._clock.now_ms())
        self.clock_check.sent(self._count, self._runtime.wall_ms())
        owned = tuple(sorted(found.number for found in partitions if found.ownership.running))
        beat = replace(self._me, number=self._count, partitions=owned, backlogs=backlogs, stopped=stopped)
        self._sender.beat(beat, BEAT)

    def answered(self) -> None:
        """The outcome of the last beat is known."""
        self._answer_s = 0.0

    def hear(self, record: Record) -> bool:
        """Somebody's beat; whether it may mean that a worker is lost. Another coordinator's never does."""
        if record.value is None:
            return False
        try:
            beat: Beat = avro.decode(record.value, WORKERS)
        except avro.DecodeError as error:
            self._sender.set_aside(record, f"undecodable beat: {error}", None)
            return False
        self._dispatcher.on_beat(beat)
        if not isinstance(beat, CoordinatorBeat):
            return True
        if beat.coordinator != self._me.coordinator:
            return False
        self.clock_check.read(beat.number, record.time_ms, self._runtime.wall_ms())
        return True
