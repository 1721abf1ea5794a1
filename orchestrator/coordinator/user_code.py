"""Entering user code: what has to hold before a run's code is told anything, and what it ends with.

Code is told all facts of a turn in one activation. Where its coroutine is not in memory, the run is replayed
first, in slices. Facts of a run whose code cannot be told now (it is blocked, is being replayed, or somebody
else has to go first) wait in history. Whatever the code may do wrong, its run alone is stopped by it: the
error is one of :data:`CODE_ERRORS`, and :func:`block_failure` says it as data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec

from orchestrator.codec import failures, payloads
from orchestrator.coordinator.caution import Caution, ProcessEnded
from orchestrator.coordinator.dispatch import Dispatcher
from orchestrator.coordinator.drafts import Draft, Made, turn_of
from orchestrator.coordinator.retries import Retries
from orchestrator.coordinator.runs import Definitions, Replay, Run, Runs, make_instance
from orchestrator.coordinator.runtime import Runtime
from orchestrator.coordinator.watchdog import Watch, under
from orchestrator.errors import NotDeterministic, QueryFailed, RecordRefused
from orchestrator.protocol import events as e
from orchestrator.protocol.actions import Action, PublishEvent
from orchestrator.protocol.records import Turn
from orchestrator.protocol.values import Failure, Payload, Payloads
from orchestrator.store.partition_store import PartitionStore
from orchestrator.workflow.definition import Handler, WorkflowDefinition
from orchestrator.workflow.instance import Instance, WorkflowCodeError
from orchestrator.workflow.loop import Evicted
from orchestrator.workflow.signals import why_unfit

REPLAY_SLICE_S = 0.020
"""Replay of one run per step: a long history must not stall the partition."""

CODE_ERRORS = (WorkflowCodeError, NotDeterministic, Evicted, KeyboardInterrupt, ProcessEnded, RecordRefused)
"""What user code ends with when it cannot go on. A ``KeyboardInterrupt`` here was raised by the code itself:
Ctrl-C reaches the main thread only. It must not end the engine at each start."""


class Host(Protocol):
    """What entering code needs of the partition that the run belongs to."""

    runs: Runs
    store: PartitionStore
    suspects: frozenset[str]
    caution: Caution
    retries: Retries

    @property
    def held_back(self) -> Mapping[str, str]:
        """Runs whose business events the log refuses, and why."""

    def why_unwritable(self, workflow_id: str) -> str:
        """Why the log does not take what the code of an id does; "" if it may."""

    def drafts_in_flight(self, run: Run) -> list[Draft]:
        """The turns of a run that are appended and not yet in the store, in order."""


class UserCode:
    """Enters the code of runs.

    Args:
        definitions: the workflow types that this process can run, by name.
        dispatcher: knows what others can run.
        runtime: the clock that bounds a slice of a replay.
        watch: ends what does not give way.
        refusal_of_topic: why a user's topic would refuse a business event of that size; "" if it may not.
    """

    def __init__(
        self,
        definitions: Definitions,
        dispatcher: Dispatcher,
        runtime: Runtime,
        watch: Watch,
        refusal_of_topic: Callable[[str, int], str],
    ) -> None:
        self._definitions = definitions
        self._dispatcher = dispatcher
        self._runtime = runtime
        self._watch = watch
        self._refusal_of_topic = refusal_of_topic

    # -------------------------------------------------------------------------------------- entering

    def tell(
        self, host: Host, run: Run, facts: list[e.Fact], now_ms: int, *, history_events: int, made: Made
    ) -> Sequence[Action] | None:
        """What the code does after new facts, and those that waited; None if it cannot be told now.

        Raises:
            BaseException: one of :data:`CODE_ERRORS`: the code cannot go on.
        """
        told = self._facts_to_tell(host, run, facts, made)
        if told is None:
            return None
        assert run.instance is not None
        activate = partial(run.instance.activate, told, now_ms, history_events=history_events)
        actions = under(self._watch, run, activate)
        self._check_topics(actions)
        return actions

    def ask(self, host: Host, run: Run, query_name: str, input: Payloads, made: Made) -> Payload | None:
        """The answer of the live instance; None if the client has to ask again, for there is none yet.

        Raises:
            CommandRejected: there is no such query, or it cannot take this.
            QueryFailed: the handler failed.
            BaseException: one of :data:`CODE_ERRORS`: there is nobody to ask.
        """
        if not host.caution.admits(run.state):
            return None
        if run.instance is None and not self._replayed(host, run, lambda: False, made):
            return None
        assert run.instance is not None
        return under(self._watch, run, partial(run.instance.query, query_name, input))

    def why_unfit(self, host: Host, run: Run, handler: Handler, input: Payloads) -> str:
        """Why a signal's handler cannot take an input; "" if it can, or if that is found out when it is told.

        To make the values is to run the user's code: what does not give way there blocks the run later.
        """
        try:
            return under(self._watch, run, lambda: why_unfit(handler, input, payloads.DEFAULT))
        except CODE_ERRORS:
            host.runs.drop(run)
            return ""

    # ------------------------------------------------------------------------------- before entering

    def _facts_to_tell(self, host: Host, run: Run, facts: list[e.Fact], made: Made) -> list[e.Fact] | None:
        """All facts since the code was last told; None if it cannot be told now."""
        state = run.state
        if state.workflow_id in host.suspects:
            raise Evicted
        if refused := host.why_unwritable(state.workflow_id):
            raise RecordRefused(refused)
        now_s = self._runtime.monotonic_s()
        waits = state.blocked is not None and host.retries.waits(state.run_id, now_s)
        if waits or not host.caution.admits(state):
            return None
        if (reason := host.held_back.get(state.run_id)) is not None:
            raise _refused_event(reason)
        if run.instance is not None and not state.deferred_from:
            return facts
        if facts and isinstance(started := facts[0], e.WorkflowStarted):
            definition = self._definitions.get(state.workflow_type)
            if definition is None:  # a peer knows it: told when the partition, or the code, has come there
                return None
            run.instance = make_instance(
                definition,
                started,
                workflow_id=state.workflow_id,
                run_id=state.run_id,
                start_time_ms=state.start_time_ms,
            )
            return facts
        deadline_s = now_s + REPLAY_SLICE_S
        if not self._replayed(host, run, lambda: self._runtime.monotonic_s() >= deadline_s, made):
            return None
        earlier = run.replay.facts if run.replay is not None else []
        run.replay = None
        return [*earlier, *facts]

    def _replayed(self, host: Host, run: Run, done: Callable[[], bool], made: Made) -> bool:
        """Go on with a run's replay; whether it has reached the last turn before this one."""
        state = run.state
        definition = self._definitions.get(state.workflow_type)
        if definition is None and self._dispatcher.peer_knows(state.workflow_type):
            return False
        if definition is None:
            known = ", ".join(sorted(self._definitions)) or "none"
            raise NotDeterministic(
                f"this process has no workflow type {state.workflow_type!r} any more; known: {known}"
            )
        if run.replay is None:
            host.runs.drop(run)
            run.replay = Replay(partial(_replayed_instance, definition))
        replay = run.replay
        turns = _turns_after(host, run, replay.turn, made)
        through = under(self._watch, run, lambda: replay.advance(turns, done))
        if not through:
            made.replaying.append(state.workflow_id)
            return False
        run.instance = replay.instance
        if not state.deferred_from:
            run.replay = None
        return True

    def _check_topics(self, actions: Sequence[Action]) -> None:
        """Events that the log is known to refuse block the run before they are recorded."""
        for action in actions:
            if isinstance(action, PublishEvent):
                size = len(action.key) + len(action.payload.data)
                if reason := self._refusal_of_topic(action.topic, size):
                    raise _refused_event(reason)


def _replayed_instance(definition: WorkflowDefinition, started: e.WorkflowStarted, turn: Turn) -> Instance:
    return make_instance(
        definition,
        started,
        workflow_id=turn.workflow_id,
        run_id=turn.run_id,
        start_time_ms=turn.time_ms,
    )


def _turns_after(host: Host, run: Run, turn: int, made: Made) -> Iterator[Turn]:
    """The turns of a run that come after one: in the store, in flight, and made in this step."""
    yield from host.store.turns(run.state.run_id, after=turn)
    new = (draft for draft in made.drafts if draft.run is run)
    for draft in (*host.drafts_in_flight(run), *new):
        if draft.turn > turn:
            yield turn_of(draft)


# ------------------------------------------------------------------------------------------- in words


def block_failure(error: BaseException) -> Failure:
    """Why a run is blocked, as data."""
    if isinstance(error, WorkflowCodeError):
        return error.failure
    return failures.to_failure(as_exception(error), payloads.DEFAULT)


def blocked_failure(run_id: str, blocked: Failure) -> Failure:
    """The answer to a query to a blocked run."""
    error = QueryFailed(f"run {run_id} is blocked and cannot answer: {blocked.type}: {blocked.message}")
    failure = failures.to_failure(error, payloads.DEFAULT)
    return msgspec.structs.replace(failure, cause=blocked)


def as_exception(error: BaseException) -> BaseException:
    """An evicted activation, in words; other errors as they are."""
    if not isinstance(error, Evicted):
        return error
    return NotDeterministic(
        "the workflow's code did not give way for more than 2 s; move the work into an activity"
    )


def _refused_event(reason: str) -> WorkflowCodeError:
    """The code cannot go on, for an event of it cannot leave."""
    error = RecordRefused(f"the log refuses a business event: {reason}")
    return WorkflowCodeError(failures.to_failure(error, payloads.DEFAULT))
