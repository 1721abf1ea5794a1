"""A whole cluster from one seed: faults first, then healing, then everything must end and be right."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from orchestrator.codec import avro
from orchestrator.coordinator import publishing, retention
from orchestrator.coordinator.retention import DEFAULT_RETENTION_MS
from orchestrator.coordinator.runtime import STEP_POINTS
from orchestrator.engine.validity import Validity
from orchestrator.errors import LogError
from orchestrator.log.port import Record
from orchestrator.log.simulated import Faults, SimulatedCluster
from orchestrator.log.topics import HISTORY, USER_TOPICS
from orchestrator.protocol import commands as c
from orchestrator.protocol.records import Turn
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.store.partition_store import PartitionStore
from orchestrator.view.store_reader import StoreReader
from tests.simulation import checkers
from tests.simulation.nodes import ClientNode, CoordinatorNode, ViewNode, WorkerNode
from tests.simulation.program import TOPICS, Program, draw, expected, signals_of
from tests.simulation.transactions import TransactionalNode

PARTITIONS = 2
WORKFLOWS = 12
FAULTY_MS = 60_000
"""For so long things go wrong, in virtual time."""

HEAL_MS = 200_000
"""So long after the healing everything must have ended: timeouts and backoffs of all programs fit in."""

CLEANING_MS = 60_000
"""So long runs past their retention are cleaned while coordinators die; then as long again in peace."""

LOOK_MS = 500
"""Between two looks for a workflow whose start nobody answers."""

START_MS = 1_700_000_000_000


class World:
    """The nodes, the log between them, and the clock. Every draw comes from the seed."""

    def __init__(self, seed: int, *, points: tuple[str, ...] = STEP_POINTS) -> None:
        """``points`` are those of a step at which coordinators crash."""
        self.seed = seed
        self.points = points
        self.rng = Random(seed)
        self._now_ms = START_MS
        self._temporary = tempfile.TemporaryDirectory(prefix="simulation-")
        self.folder = Path(self._temporary.name)
        self.cluster = SimulatedCluster(
            Random(self.rng.getrandbits(64)),
            self.now,
            partitions=PARTITIONS,
            faults=_draw_faults(self.rng),
        )
        self.max_runs = self.rng.choice([0, 0, 3, 10_000])
        self.retention_ms = DEFAULT_RETENTION_MS
        self.visited: dict[str, int] = {}
        self.ledger: list[tuple[str, int, int, int, str]] = []
        self.notes: list[str] = []
        self.counts: Counter[str] = Counter()
        self.coordinators = [CoordinatorNode(f"c{n}", self) for n in range(2)]
        self.workers = [WorkerNode(f"w{n}", self) for n in range(2)]
        self.client = ClientNode("client", self)
        self.transactional = TransactionalNode(self)
        self.healed = False
        self.view = ViewNode("v", self)
        self.programs: dict[str, Program] = {}
        self.touched: dict[str, str] = {}
        self.answers: dict[str, Reply] = {}
        self.run_ids: dict[str, str] = {}

    def now(self) -> int:
        """Virtual Unix milliseconds."""
        return self._now_ms

    def note(self, words: str) -> None:
        """Keep a line for whoever looks at a failure."""
        self.notes.append(f"{self._now_ms - START_MS:>8} {words}")

    def run(self) -> None:
        """The whole life of this cluster; raises ``checkers.Violation``."""
        usual, publishing.FEED_TURNS = publishing.FEED_TURNS, self.rng.choice([1, 3])
        try:
            for node in (*self.coordinators, *self.workers, self.view):
                node.start()
            starts = sorted(START_MS + self.rng.randint(0, FAULTY_MS) for _ in range(WORKFLOWS))
            while self._now_ms < START_MS + FAULTY_MS:
                while starts and starts[0] <= self._now_ms:
                    starts.pop(0)
                    self._start_workflow()
                self._harm()
                self._step()
            for _ in starts:
                self._start_workflow()
            self._heal()
            while (
                self._unfinished() or self._unpublished()
            ) and self._now_ms < START_MS + FAULTY_MS + HEAL_MS:
                self._step()
            self._settle()
            self._check()
            if self.seed % 3 == 0:
                usually, retention.TOMBSTONES_PER_SWEEP = retention.TOMBSTONES_PER_SWEEP, 2
                try:
                    self._clean_up()
                finally:
                    retention.TOMBSTONES_PER_SWEEP = usually
        finally:
            publishing.FEED_TURNS = usual
            self.close()

    def close(self) -> None:
        """Release files."""
        for node in self.coordinators:
            node.die(wipe=True)
        self.view.die(wipe=True)
        self._temporary.cleanup()

    # --- what happens ---

    def _step(self) -> None:
        nodes = [*self.coordinators, *self.workers, self.client, self.view]
        self.rng.shuffle(nodes)
        for node in nodes:
            if node.paused_until_ms <= self._now_ms:
                node.step()
        self._now_ms += self.rng.choice([1, 1, 2, 5, 20, 50])

    def _start_workflow(self) -> None:
        workflow_id = f"wf-{len(self.programs)}"
        program = draw(self.rng)
        self.programs[workflow_id] = program
        if self.rng.random() < 0.25:
            self.transactional.send(self.client.starting(workflow_id, program))
            self._look_for(workflow_id)
        else:
            start = self.client.starting(workflow_id, program)
            self.client.ask(start, lambda reply: self._started(workflow_id, reply))

    def _look_for(self, workflow_id: str) -> None:
        """Nobody is told when what was sent in a transaction is done: ask until it is there."""

        def answered(reply: Reply) -> None:
            if reply.run_id:
                self._started(workflow_id, reply)
            else:
                self.cluster.at(self._now_ms + LOOK_MS, lambda: self._look_for(workflow_id))

        self.client.ask(c.QueryWorkflow(workflow_id=workflow_id, query_name="status"), answered)

    def _started(self, workflow_id: str, reply: Reply) -> None:
        if reply.rejection:
            self.note(f"{workflow_id} was refused: {reply.message}")
        self.run_ids[workflow_id] = reply.run_id
        signals = [c.SignalWorkflow(workflow_id=workflow_id, signal_name="poke")]
        signals *= signals_of(self.programs[workflow_id])
        if signals and self.rng.random() < 0.5:
            self.transactional.send(*signals)
        else:
            for signal in signals:
                self._ask(signal)
        chance = self.rng.random()
        if chance < 0.1:
            self.touched[workflow_id] = "Canceled"
            self._ask(c.CancelWorkflow(workflow_id=workflow_id))
        elif chance < 0.2:
            self.touched[workflow_id] = "Terminated"
            self._ask(c.TerminateWorkflow(workflow_id=workflow_id, reason="drawn"))
        elif chance < 0.4:
            self._ask(c.QueryWorkflow(workflow_id=workflow_id, query_name="status"))
        if chance > 0.9:
            again = c.StartWorkflow(workflow_id=workflow_id, workflow_type="Interpreter")
            self.client.ask(again, lambda reply: self.counts.update({f"again-{reply.rejection}": 1}))
            self.touched[workflow_id] = "started again"
        awaited = c.AwaitResult(workflow_id=workflow_id, run_id=reply.run_id)
        self.client.ask(awaited, lambda reply: self.answers.__setitem__(workflow_id, reply))

    def _ask(self, command: c.Command) -> None:
        self.client.ask(command, lambda reply: self.counts.update({reply.rejection or "accepted": 1}))

    def _harm(self) -> None:
        rng = self.rng
        chance = rng.random()
        node = rng.choice(self.coordinators)
        if chance < 0.002 and node.process is not None:
            node.runtime.armed = rng.choice(self.points)
        elif chance < 0.0025:
            self.note(f"{node.name} is killed")
            node.die(wipe=rng.random() < 0.2)
        elif chance < 0.0035:
            node.paused_until_ms = self._now_ms + rng.choice([3_000, 7_000, 20_000])
        elif chance < 0.0040:
            worker = rng.choice(self.workers)
            self.note(f"{worker.name} is killed")
            worker.die()
        elif chance < 0.0045:
            worker = rng.choice(self.workers)
            if worker.alive:
                worker.drain()
        elif chance < 0.0050:
            rng.choice(self.workers).paused_until_ms = self._now_ms + rng.choice([3_000, 8_000, 20_000])
        elif chance < 0.0055:
            self.note("the view is killed")
            self.view.die(wipe=rng.random() < 0.3)
        elif chance < 0.0063:
            self.note(f"{node.name} leaves")
            node.leave()

    def _heal(self) -> None:
        self.note("healed")
        self.healed = True
        self.cluster.heal()
        for node in self.coordinators:
            node.paused_until_ms = 0
            if node.process is not None:
                node.runtime.armed = ""
        for worker in self.workers:
            worker.paused_until_ms = 0

    def _unfinished(self) -> bool:
        return len(self.answers) < len(self.programs) or len(self.client.requests) > 0

    def _unpublished(self) -> bool:
        """Whether a partition has no owner, or its owner has events that are not published yet."""
        owned = {
            number: partition.publishing
            for node in self.coordinators
            if node.process is not None
            for number, partition in node.process.partitions.items()
            if partition.ownership.running and partition.publishing is not None
        }
        return len(owned) < PARTITIONS or not all(publishing.idle for publishing in owned.values())

    def _settle(self) -> None:
        """Let everything that is under way arrive."""
        until_ms = self._now_ms + 5_000
        while self._now_ms < until_ms:
            self._step()

    # --- the second act ---

    def _clean_up(self) -> None:
        """All runs are past their retention. They go, and nothing comes back, whoever dies and loses its
        store meanwhile, and wherever the log's cleaner has been.
        """
        self.note("all runs are past their retention")
        self.retention_ms = 1
        first = [self.cluster.partition(HISTORY, number).end for number in range(PARTITIONS)]
        for node in self.coordinators:
            node.die(wipe=False)
            node.restart_at_ms = 0
        until_ms = self._now_ms + CLEANING_MS
        while self._now_ms < until_ms:
            self._step()
            chance = self.rng.random()
            if chance < 0.005:
                self.rng.choice(self.coordinators).die(wipe=self.rng.random() < 0.5)
            elif chance < 0.05:
                self._nothing_came_back(first)
                self.cluster.clean(HISTORY, self.rng.randrange(PARTITIONS))
        while self._now_ms < until_ms + CLEANING_MS:
            self._step()
        self._nothing_came_back(first)
        for number in range(PARTITIONS):
            self.cluster.clean(HISTORY, number, up_to=self.cluster.partition(HISTORY, number).end)
        left = [key for key in self._keys_of_history() if not key.startswith((b"claim", b"position"))]
        if left:
            raise checkers.Violation(f"after their retention there are still {len(left)} records: {left[:3]}")

    def _nothing_came_back(self, first: list[int]) -> None:
        """No turn that counts was appended since: all commands were decided, and all runs are closed."""
        for number, offset in enumerate(first):
            validity = Validity()
            for record in self.cluster.partition(HISTORY, number).read(0, 10**9):
                decoded = avro.decode(record.value) if record.value is not None else None
                counts = decoded is not None and validity.judge(decoded)
                if counts and isinstance(decoded, Turn) and record.offset >= offset:
                    raise checkers.Violation(f"{record.key!r} was appended when all was done")

    def _keys_of_history(self) -> Iterator[bytes]:
        for number in range(PARTITIONS):
            for record in self.cluster.partition(HISTORY, number).read(0, 10**9):
                if record.value is not None:
                    yield record.key

    # --- what must hold ---

    def _check(self) -> None:
        histories = {
            number: self.cluster.partition(HISTORY, number).read(0, 10**9) for number in range(PARTITIONS)
        }
        facts = checkers.read(histories)
        self.counts["void"] = facts.void
        self.counts["claims"] = facts.claims
        self.counts["turns"] = sum(len(turns) for turns in facts.turns.values())
        for check in checkers.CHECKERS:
            check(facts)
        checkers.no_signal_twice(facts, {id: signals_of(program) for id, program in self.programs.items()})
        checkers.attempts_started_once(facts, self.ledger)
        published = {topic: self._records_of(topic) for topic in TOPICS}
        checkers.published_once(facts, published)
        self.counts["published"] = sum(map(len, published.values()))
        checkers.everything_closed(facts)
        for node in self.coordinators:
            if node.process is not None:
                for partition in node.process.partitions.values():
                    if partition.ownership.running:
                        self._check_store(facts, partition.number, partition.store)
        self._check_view(facts)
        self._check_outcomes(facts)

    def _check_store(self, facts: checkers.Facts, number: int, store: PartitionStore) -> None:
        first_turns = [turn.run_id for turn in facts.turns[number] if turn.turn == 1]
        checkers.store_is_fold(facts, [(run_id, store.state(run_id)) for run_id in first_turns])

    def _check_view(self, facts: checkers.Facts) -> None:
        """A view shows all runs and no others, as they are."""
        assert self.view.process is not None
        stores = self.view.process.stores()
        for number, store in enumerate(stores):
            if store is None:
                raise checkers.Violation(f"the view is not there: {self.view.process.status()}")
            self._check_store(facts, number, store)
        shown = {row.run_id for row in StoreReader(lambda: stores).list_runs(limit=10**6).rows}
        if shown != facts.states.keys():
            raise checkers.Violation(f"the view lists other runs: {shown ^ facts.states.keys()}")

    def _records_of(self, topic: str) -> list[Record]:
        try:
            return self.cluster.partition(USER_TOPICS + topic, 0).read(0, 10**9)
        except LogError:  # nobody has ever published to it
            return []

    def _check_outcomes(self, facts: checkers.Facts) -> None:
        """Each workflow was started, and ended as its program says, and the client was told so."""
        for workflow_id, program in self.programs.items():
            reply = self.answers.get(workflow_id)
            if reply is None:
                raise checkers.Violation(f"{workflow_id} was never answered")
            state = facts.states.get(self.run_ids[workflow_id])
            if state is None or state.status.value != reply.status:
                raise checkers.Violation(f"{workflow_id}: the client was told {reply.status}, not {state}")
            status, total = expected(program)
            if workflow_id in self.touched and state.status.value != status:
                if state.status.value != self.touched[workflow_id]:
                    raise checkers.Violation(f"{workflow_id} ended {state.status.value}: {program}")
            elif state.status.value != status:
                raise checkers.Violation(f"{workflow_id} ended {state.status.value}, not {status}: {program}")
            elif state.status is WorkflowStatus.COMPLETED and _number(reply) != total:
                raise checkers.Violation(f"{workflow_id} gave {reply.result}, not {total}: {program}")


def _number(reply: Reply) -> int:
    return int(reply.result.data) if reply.result is not None else -1


def _draw_faults(rng: Random) -> Faults:
    """Which faults exist in this world, and how often; a quarter of the worlds has none."""
    if rng.random() < 0.25:
        return Faults.none()
    usual = Faults()
    rates = {}
    for name in Faults.__struct_fields__:
        rate = getattr(usual, name)
        if name.endswith("_ms"):
            rates[name] = rate
        else:
            rates[name] = rng.choice([0.0, rate, rate, min(1.0, rate * 3)])
    return Faults(**rates)
