"""The processes of a simulated cluster. Each is stepped by hand; all time and chance come from the world."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from msgspec.structs import replace

from orchestrator.client.requests import Requests
from orchestrator.codec import payloads
from orchestrator.coordinator.coordinator import Coordinator
from orchestrator.coordinator.runtime import Repeated
from orchestrator.log.port import Outcome
from orchestrator.log.simulated_client import SimulatedClientLog
from orchestrator.protocol import commands as c
from orchestrator.protocol.tasks import ActivityTask, Reply, WorkerBeat
from orchestrator.protocol.values import Failure, FailureKind, ReplyTo
from orchestrator.view.materializer import Materializer
from orchestrator.worker.inbox import DeliveryKey, InboxRules, key_of
from orchestrator.worker.incarnation import Incarnation, Load
from orchestrator.worker.reports import Report, Reports
from orchestrator.workflow.definition import definition_of
from tests.simulation.program import Interpreter, Program

DEFINITIONS = {"Interpreter": definition_of(Interpreter)}

SILENCE_MS = 10_000
"""A connection that acknowledged nothing for so long is given up."""

STALLS_MS = (0, 0, 500, 3_000, 15_000)
"""How long a thread may not be scheduled, or its call may take."""

BEAT_ACK_S = 3.0
"""A beat that was not acknowledged by then counts as failed."""


class Crash(BaseException):
    """The process dies here."""


class SimulatedLoop:
    """A thread beside a coordinator's: its steps fall between any two of the coordinator's, or much later."""

    def __init__(self, work: Repeated, rng: Random, now_ms: Callable[[], int]) -> None:
        self._work, self._rng, self._now_ms = work, rng, now_ms
        self._wait_until_ms = self._stalled_until_ms = 0
        self.ended = self.over = False

    def wake(self) -> None:
        self._wait_until_ms = 0

    def end(self, wait_s: float = 0.0) -> None:
        """A step that was begun before is done, now or much later."""
        self.ended = True
        self._wait_until_ms = 0
        self._stalled_until_ms = self._now_ms() + self._rng.choice(STALLS_MS)

    def step(self) -> None:
        now_ms = self._now_ms()
        if now_ms < max(self._wait_until_ms, self._stalled_until_ms):
            return
        self._wait_until_ms = now_ms + round(self._work.step() * 1_000)
        if self._rng.random() < 0.05:
            self._stalled_until_ms = now_ms + self._rng.choice(STALLS_MS)
        self.over = self.ended


class SimulatedRuntime:
    """Clock and chance of one process; crashes at an armed point."""

    def __init__(self, rng: Random, now_ms: Callable[[], int], visited: dict[str, int]) -> None:
        self._rng, self._now_ms, self._visited = rng, now_ms, visited
        self.armed = ""
        self.loops: list[SimulatedLoop] = []

    @property
    def random(self) -> Random:
        return self._rng

    def wall_ms(self) -> int:
        return self._now_ms()

    def monotonic_s(self) -> float:
        return self._now_ms() / 1_000

    def at(self, point: str) -> None:
        if point == self.armed:
            self._visited[point] = self._visited.get(point, 0) + 1
            raise Crash(point)

    def repeat(self, name: str, work: Repeated) -> SimulatedLoop:
        loop = SimulatedLoop(work, Random(self._rng.getrandbits(64)), self._now_ms)
        self.loops.append(loop)
        return loop


class CoordinatorNode:
    """A coordinator's machine: processes on it come and go, its disk stays, unless it is wiped."""

    def __init__(self, name: str, world: Any) -> None:
        self.name, self.world = name, world
        self.folder: Path = world.folder / name
        self.paused_until_ms = 0
        self.process: Coordinator | None = None
        self.runtime: SimulatedRuntime
        self.restart_at_ms = 0
        self._leaves = False

    def start(self) -> None:
        world = self.world
        self._leaves = False
        rng = Random(world.rng.getrandbits(64))
        self.runtime = SimulatedRuntime(rng, world.now, world.visited)
        self._member = world.cluster.member(self.name)
        self.process = Coordinator(
            self._member,
            self.folder,
            DEFINITIONS,
            self.runtime,
            log_id="simulated",
            identity=self.name,
            max_runs_in_memory=world.max_runs,
            retention_ms=world.retention_ms,
        )
        self.process.start()

    def die(self, *, wipe: bool) -> None:
        """The process is gone at once; what it had appended may still land."""
        if self.process is None:
            return
        self._member.die()
        for partition in self.process.partitions.values():
            partition.store.close()
        self.process = None
        if wipe:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.restart_at_ms = self.world.now() + self.world.rng.randint(0, 15_000)

    def leave(self) -> None:
        """The process ends in order: with the steps that follow."""
        if self.process is not None and not self._leaves:
            self._leaves = True
            self._guarded(self.process.leave)

    def step(self) -> None:
        if self.process is None:
            if self.world.now() >= self.restart_at_ms:
                self.start()
            return
        self._guarded(self._step)

    def _step(self) -> None:
        assert self.process is not None
        if self._leaves and self.process.left:
            self.process.close()
            self.world.counts["left-in-order"] += 1
            self.die(wipe=False)
            return
        self.process.step(0)
        self._step_loops()

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Crash as crash:
            self.world.note(f"{self.name} crashed at {crash}")
            self.die(wipe=self.world.rng.random() < 0.2)

    def _step_loops(self) -> None:
        for loop in self.runtime.loops[:]:
            if self.world.rng.random() < 0.5:
                loop.step()
            if loop.over:
                self.runtime.loops.remove(loop)


class ViewNode:
    """A view's machine: it follows the log, ends at any moment, and goes on with its disk, or without."""

    def __init__(self, name: str, world: Any) -> None:
        self.name, self.world = name, world
        self.folder: Path = world.folder / name
        self.paused_until_ms = 0
        self.process: Materializer | None = None

    def start(self) -> None:
        member = self.world.cluster.member(self.name)
        self.process = Materializer(member, self.folder, log_id="simulated", now_ms=self.world.now)

    def die(self, *, wipe: bool) -> None:
        """The process is gone; what it has not written is read again."""
        if self.process is not None:
            self.process.close()
            self.process = None
        if wipe:
            shutil.rmtree(self.folder, ignore_errors=True)

    def step(self) -> None:
        if self.process is None:
            self.start()
        else:
            self.process.step()


class WorkerNode:
    """A worker by the rules that the real one uses; activities take drawn times."""

    def __init__(self, name: str, world: Any, slots: int = 1) -> None:
        self.name, self.world, self.slots = name, world, slots
        self.paused_until_ms = 0
        self.draining = False
        self.lives = 0
        self.restart_at_ms = 0
        self.alive = False

    def start(self) -> None:
        world = self.world
        self.lives += 1
        self.alive, self.draining = True, False
        self.log = SimulatedClientLog(world.cluster, self.name)
        self.open()

    def open(self) -> None:
        """Begin a new incarnation."""
        self.worker = f"{self.name}-{self.lives}-{self.world.rng.getrandbits(32):08x}"
        self.inbox = self.log.open_inbox(self.worker)
        self.beats = self.log.open_beats()
        first = WorkerBeat(
            worker=self.worker,
            identity=self.name,
            task_queues=("default",),
            slots=self.slots,
            running=0,
            inbox=self.inbox.partition,
            inbox_offset=self.inbox.offset,
            number=0,
        )
        self.incarnation = Incarnation(first)
        self.rules = InboxRules(self.worker, self.slots)
        self.reports = Reports(self.name)
        self.running: dict[DeliveryKey, tuple[ActivityTask, int, int]] = {}
        self.unsent: list[tuple[DeliveryKey, Report, int]] = []
        self.beat_sent_s = 0.0
        self.acknowledged_ms = 0

    def die(self) -> None:
        if self.alive:
            self.log.die()
            self.alive = False
            self.restart_at_ms = self.world.now() + self.world.rng.randint(0, 10_000)

    def step(self) -> None:
        now_ms = self.world.now()
        if not self.alive:
            if now_ms >= self.restart_at_ms:
                self.start()
            return
        now_s = now_ms / 1_000
        for delivery in self.log.poll():
            if delivery.token == ("beat", self.worker):
                self.incarnation.sent()
            elif isinstance(delivery.token, tuple) and delivery.token[0] == "report":
                _, key, worker = delivery.token
                self.acknowledged_ms = now_ms
                if worker == self.worker and delivery.outcome is Outcome.DELIVERED:
                    self.rules.reported(key)
                    self.unsent = [item for item in self.unsent if item[0] != key]
        self.incarnation.read_back(self.beats.take())
        if self.incarnation.lost:
            self.world.note(f"{self.worker} takes a new incarnation")
            self.open()
            return
        self._tasks(now_ms, now_s)
        self._finish(now_ms)
        self._send(now_ms)
        self._beat(now_s)
        if self.draining and not self.running and not self.unsent:
            self.die()

    def _tasks(self, now_ms: int, now_s: float) -> None:
        may_start = self.incarnation.may_start(now_s)
        verdict = self.rules.receive(self.inbox.take(), may_start=may_start)
        started = list(verdict.start)
        if may_start:
            started += self.rules.release()
        for task in started:
            self._start(task, now_ms)
        for returned in verdict.give_back:
            self._report(key_of(returned.task), self.reports.returned(returned.task, returned.reason))
        for task in verdict.canceled:
            self._report(key_of(task), self.reports.canceled(task, 0))
        for key in verdict.cancel:
            if key in self.running:  # a cancellation may come twice
                task, started_ms, _ = self.running.pop(key)
                self.rules.ended(key)
                self._report(key, self.reports.canceled(task, started_ms))

    def drain(self) -> None:
        self.draining = True
        for returned in self.rules.drain():
            self._report(key_of(returned.task), self.reports.returned(returned.task, returned.reason))

    def _start(self, task: ActivityTask, now_ms: int) -> None:
        self.world.ledger.append((task.run_id, task.activity_id, task.attempt, task.dispatch, self.worker))
        took_ms = self.world.rng.choice([0, 1, 20, 200, 3_000])
        if task.activity_type == "hangs":
            took_ms = 10**9
        self.running[key_of(task)] = (task, now_ms, now_ms + took_ms)

    def _finish(self, now_ms: int) -> None:
        for key, (task, started_ms, ends_ms) in list(self.running.items()):
            if ends_ms > now_ms:
                timeout_ms = task.start_to_close_ms
                if timeout_ms is None or now_ms < task.dispatched_time_ms + timeout_ms + 1_000:
                    continue
            del self.running[key]
            self.rules.ended(key)
            self._report(key, self._outcome(task, started_ms))

    def _outcome(self, task: ActivityTask, started_ms: int) -> Report:
        if task.activity_type == "ok" or (task.activity_type == "flaky" and task.attempt > 1):
            return self.reports.completed(task, started_ms, task.input[0])
        failure = Failure(kind=FailureKind.APPLICATION, type="Scripted", message="as the script says")
        return self.reports.failed(task, started_ms, failure)

    def _report(self, key: DeliveryKey, report: Report) -> None:
        if not self.unsent:
            self.acknowledged_ms = self.world.now()
        self.unsent.append((key, report, 0))

    def _send(self, now_ms: int) -> None:
        if self.unsent and now_ms - self.acknowledged_ms > SILENCE_MS:
            self.log.reconnect()
            self.acknowledged_ms = now_ms
        for place, (key, report, next_ms) in enumerate(self.unsent):
            if next_ms <= now_ms:
                self.log.send(report, ("report", key, self.worker))
                self.unsent[place] = (key, report, now_ms + 2_000)

    def _beat(self, now_s: float) -> None:
        load = Load(self.rules.busy, self.inbox.offset, self.draining)
        beat = self.incarnation.next_beat(load, now_s)
        if beat is not None:
            self.beat_sent_s = now_s
            self.log.beat(beat, ("beat", self.worker))
        elif now_s - self.beat_sent_s > BEAT_ACK_S:
            self.incarnation.sent()


class ClientNode:
    """A client that starts workflows, signals, queries, cancels and terminates them, and awaits results."""

    def __init__(self, name: str, world: Any) -> None:
        self.name, self.world = name, world
        self.log = SimulatedClientLog(world.cluster, name)
        self.client_id = f"client-{name}"
        self.replies = self.log.open_replies(self.client_id)
        self.requests = Requests()
        self.on_reply: dict[str, Callable[[Reply], None]] = {}
        self.paused_until_ms = 0
        self.made = 0

    def ask(self, command: Any, then: Callable[[Reply], None]) -> str:
        """Send a command until it is answered; then call ``then`` with the answer."""
        self.made += 1
        request_id = f"{self.name}/{self.made}"
        reply_to = ReplyTo(partition=self.replies.partition, client_id=self.client_id)
        command = replace(command, request_id=request_id, identity=self.name, reply_to=reply_to)
        self.requests.add(command, self.world.now() / 1_000, None)
        self.on_reply[request_id] = then
        self.log.send(command)
        return request_id

    def step(self) -> None:
        self.log.poll()
        for reply in self.replies.take():
            if self.requests.forget(reply.request_id):
                self.on_reply.pop(reply.request_id)(reply)
        for command in self.requests.due(self.world.now() / 1_000).repeat:
            self.log.send(command)

    def starting(self, workflow_id: str, program: Program) -> c.StartWorkflow:
        """The command that starts a program."""
        return c.StartWorkflow(
            workflow_id=workflow_id,
            workflow_type="Interpreter",
            input=payloads.DEFAULT.to_payloads([program]),
        )
