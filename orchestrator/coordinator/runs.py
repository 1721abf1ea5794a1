"""Runs in memory: their state, and the live coroutine of their code.

The state runs ahead of the store by what is in flight; nothing of a run with turns in flight is let
go. An instance that was let go is made again by replaying the run's turns.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from orchestrator.coordinator.watchdog import Unwatched, Watch, under
from orchestrator.engine import translate
from orchestrator.engine.state import RunState
from orchestrator.errors import NotDeterministic
from orchestrator.protocol.events import Fact, Outcome, WorkflowStarted, facts_of, outcomes_of
from orchestrator.protocol.records import Activation, Turn
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.rows import snapshot_due
from orchestrator.workflow.definition import WorkflowDefinition
from orchestrator.workflow.instance import Instance
from orchestrator.workflow.loop import Evicted

log = logging.getLogger(__name__)

MAX_RUNS_IN_MEMORY = 10_000
"""Per partition. A run that was let go costs a replay when it is next woken: memory against time."""


class Run(msgspec.Struct, eq=False):
    """The latest run of a workflow id, in memory.

    ``in_flight`` counts its turns in flight, ``snapshot_event`` is where its state row stands at least,
    ``requests`` says how many request ids of its workflow id are remembered (-1: not counted yet).
    """

    state: RunState
    instance: Instance | None = None
    replay: Replay | None = None
    in_flight: int = 0
    snapshot_event: int = 0
    requests: int = -1

    @property
    def workflow_id(self) -> str:
        """The id that it is the latest run of."""
        return self.state.workflow_id

    @property
    def pinned(self) -> bool:
        """Whether turns are in flight."""
        return self.in_flight > 0

    def takes_snapshot(self) -> bool:
        """Whether the state's row is to be written with the turn that was just made; notes it if so."""
        if not snapshot_due(self.state, self.snapshot_event):
            return False
        self.snapshot_event = self.state.next_event_id
        return True

    def drop_instance(self) -> None:
        """Let the live coroutine go; it is made again by a replay."""
        for instance in self._instances():
            instance.close()
        self.instance = self.replay = None

    def evict(self) -> None:
        """End the code that runs now, from another thread (see ``Instance.evict``)."""
        for instance in self._instances():
            instance.evict()

    def _instances(self) -> Iterator[Instance]:
        """The live coroutine, and the one that a replay is making."""
        replay = self.replay
        if replay is not None and replay.instance is not None:
            yield replay.instance
        if self.instance is not None and (replay is None or replay.instance is not self.instance):
            yield self.instance


class Runs:
    """The runs of one partition, by workflow id; least recently used ones are let go."""

    def __init__(
        self, store: PartitionStore, *, limit: int = MAX_RUNS_IN_MEMORY, watch: Watch | None = None
    ) -> None:
        """Begin with none in memory. ``watch`` looks after the code that runs when an instance is let go."""
        self._store = store
        self._limit = limit
        self._watch = watch if watch is not None else Unwatched()
        self._runs: OrderedDict[str, Run] = OrderedDict()

    def drop(self, run: Run) -> None:
        """Let a run's live coroutine go. Its ``finally`` blocks may take no longer than other code."""
        if run.instance is None and run.replay is None:
            return
        try:
            under(self._watch, run, run.drop_instance)
        except Evicted:
            log.warning("run %s did not give way when it was let go", run.state.run_id)
            run.instance = run.replay = None

    def get(self, workflow_id: str) -> Run | None:
        """The latest run of an id, from memory or the store; None if the id was never used."""
        run = self._runs.get(workflow_id)
        if run is not None:
            self._runs.move_to_end(workflow_id)
            return run
        run_id = self._store.latest_run_id(workflow_id)
        state = self._store.state(run_id) if run_id is not None else None
        if state is None:
            return None
        run = Run(state)
        self._runs[workflow_id] = run
        return run

    def put(self, run: Run) -> None:
        """A new run is its id's latest from here on."""
        self._runs[run.state.workflow_id] = run
        self._runs.move_to_end(run.state.workflow_id)

    def tidy(self, workflow_ids: Iterable[str]) -> None:
        """Let go of those that are closed, and of the least recently used ones of all.

        What has turns in flight stays.
        """
        for workflow_id in workflow_ids:
            run = self._runs.get(workflow_id)
            if run is not None and not run.state.is_open and not run.pinned:
                self.release(run)
        if len(self._runs) <= self._limit:
            return
        for workflow_id in list(self._runs):
            run = self._runs[workflow_id]
            if not run.pinned:
                self.release(run)
            if len(self._runs) <= self._limit:
                return

    def release(self, run: Run) -> None:
        """Let go of a run, if it still is its id's latest in memory."""
        self.drop(run)
        if self._runs.get(run.state.workflow_id) is run:
            del self._runs[run.state.workflow_id]

    def clear(self) -> None:
        """Let go of all runs."""
        for run in self._runs.values():
            self.drop(run)
        self._runs.clear()


class Replay:
    """The replay of a run's turns into a new instance, in slices.

    Facts are told in the activations of the first execution; outcomes are held against the actions
    that the code makes now. When it is through, ``facts`` are those that wait for the next activation.
    """

    def __init__(self, make: Callable[[WorkflowStarted, Turn], Instance]) -> None:
        """``make`` creates the instance from the run's first event and turn."""
        self._make = make
        self.instance: Instance | None = None
        self.facts: list[Fact] = []
        self.turn = 0

    def advance(self, turns: Iterable[Turn], done: Callable[[], bool]) -> bool:
        """Go on with the turns after :attr:`turn` until ``done()``; whether their end was reached.

        Raises ``NotDeterministic`` or ``WorkflowCodeError`` if the code no longer does what history says.
        """
        for turn in turns:
            self._replay(turn)
            if done():
                return False
        return True

    def _replay(self, turn: Turn) -> None:
        if self.instance is None:
            first = turn.events[0]
            assert isinstance(first, WorkflowStarted)
            self.instance = self._make(first, turn)
        self.turn = turn.turn
        self.facts.extend(facts_of(turn.events))
        if turn.activation is Activation.DONE:
            self._activate(turn, outcomes_of(turn.events))

    def _activate(self, turn: Turn, outcomes: list[Outcome]) -> None:
        assert self.instance is not None
        facts, self.facts = self.facts, []
        actions = self.instance.activate(
            facts, turn.time_ms, replaying=True, history_events=turn.first_event_id - 1
        )
        for place in range(max(len(actions), len(outcomes))):
            action = actions[place] if place < len(actions) else None
            outcome = outcomes[place] if place < len(outcomes) else None
            if difference := translate.mismatch(action, outcome):
                raise NotDeterministic(
                    f"replay of turn {turn.turn} of run {turn.run_id}: {difference}; the workflow's code "
                    f"has changed, or does something that differs from one execution to the next"
                )


def make_instance(
    definition: WorkflowDefinition,
    started: WorkflowStarted,
    *,
    workflow_id: str,
    run_id: str,
    start_time_ms: int,
) -> Instance:
    """The live coroutine of a run, not yet told anything."""
    return Instance(
        definition, workflow_id=workflow_id, run_id=run_id, started=started, start_time_ms=start_time_ms
    )


Definitions = Mapping[str, WorkflowDefinition]
