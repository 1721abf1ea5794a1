"""What must be true after the demo. Each check looks at the evidence and names what is wrong with it.

Nothing here asks the engine for its opinion of itself alone: histories are held against the dead
engine's log, and both against the ledger, which the activities write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from orchestrator.demo.evidence import (
    Evidence,
    activity_types,
    completed,
    events_of,
    failed_attempts,
    is_closed,
    summarize,
)
from orchestrator.demo.saga import DEFERRED
from orchestrator.protocol.events import (
    ActivitiesDispatched,
    ActivityAttemptFailed,
    ActivityCompleted,
    ActivityFailed,
    ActivityScheduled,
    ActivityTimedOut,
    TimerCanceled,
    TimerFired,
    TimerStarted,
)
from orchestrator.protocol.values import WorkflowStatus
from orchestrator.protocol.views import History

COMPLETED, FAILED = WorkflowStatus.COMPLETED, WorkflowStatus.FAILED


@dataclass(frozen=True)
class Expected:
    """How a run must end.

    Attributes:
        status: its status.
        error: the words of the failure that ended it.
        tags: the tags on the event that closed it.
        undone: its compensations, in order.
        retried: an activity of which an attempt failed, and with which words.
    """

    status: WorkflowStatus
    error: str = ""
    tags: tuple[str, ...] = ()
    undone: tuple[str, ...] = ()
    retried: tuple[str, str] | None = None


EXPECTED: dict[str, Expected] = {
    "m-7731": Expected(COMPLETED),
    "m-9001-BAD": Expected(
        FAILED,
        error="sanctions hit",
        undone=("withdraw_verification", "delete_kyc_document"),
    ),
    "m-7732": Expected(
        COMPLETED, retried=("create_settlement_account", "Unsteady Bank closed the connection")
    ),
    "m-7733": Expected(
        FAILED,
        error="risk score 97 is above 80",
        tags=(DEFERRED,),
        undone=(
            "return_reserve",
            "close_settlement_account",
            "remove_merchant",
            "withdraw_verification",
            "delete_kyc_document",
        ),
    ),
    "o-1001": Expected(COMPLETED),
    "o-1002": Expected(COMPLETED),
    "o-1003": Expected(COMPLETED, undone=("release_inventory",)),
    "o-1004": Expected(COMPLETED),
}
"""The one table of what the demo's input must lead to."""

UNDOES: dict[str, str] = {
    "delete_kyc_document": "fetch_kyc_document",
    "withdraw_verification": "verify_kyc_document",
    "remove_merchant": "create_merchant",
    "close_settlement_account": "create_settlement_account",
    "return_reserve": "fund_reserve",
    "clear_dashboard": "seed_dashboard",
    "release_inventory": "reserve_inventory",
}
"""Which step each compensation undoes."""

REVIEWED = "o-1003"
"""The order that waits for a person while the engine is killed."""

LONGEST_WAIT_MS = 60_000
"""A timer beyond this is a deadline; what the runs of the demo wait for takes seconds."""


class Check(NamedTuple):
    """A sentence that must be true, and who looks for what makes it false."""

    claim: str
    problems: Callable[[Evidence], Iterator[str]]


def outcomes(evidence: Evidence) -> Iterator[str]:
    """Every run ended as the table says."""
    for workflow_id, expected in EXPECTED.items():
        history = evidence.after.get(workflow_id)
        if history is None:
            yield f"{workflow_id} is not known to the engine any more"
            continue
        found = summarize(history)
        if (found.status, found.error, found.tags) != (expected.status, expected.error, expected.tags):
            yield (
                f"{workflow_id} is {found.status} with error {found.error!r} and tags {list(found.tags)}; "
                f"expected {expected.status}, {expected.error!r} and {list(expected.tags)}"
            )
        if expected.retried and expected.retried not in failed_attempts(history):
            activity, message = expected.retried
            yield f"{workflow_id}: no attempt of {activity} failed with {message!r} and was retried"


def killed_at_work(evidence: Evidence) -> Iterator[str]:
    """The kill met runs inside an activity, in a wait, and in a manual review: else it proves nothing.

    Where others go on, the log that is read after the kill says more than it did at the kill.
    """
    at_kill = {
        workflow_id: msgspec.structs.replace(history, turns=turns)
        for workflow_id, history in evidence.before.items()
        if (turns := tuple(turn for turn in history.turns if turn.time_ms <= evidence.killed_ms))
    }
    open_runs = [history for history in at_kill.values() if not is_closed(history)]
    if not any(_running(history) for history in open_runs):
        yield "no run was inside an activity when the engine was killed"
    if not any(_waits(history) for history in open_runs):
        yield "no run was waiting for a timer when the engine was killed"
    reviewed = at_kill.get(REVIEWED)
    if reviewed is None or is_closed(reviewed) or _running(reviewed) or not _undone(reviewed):
        yield f"{REVIEWED} was not in manual review when the engine was killed"


def nothing_lost(evidence: Evidence) -> Iterator[str]:
    """What the log held before the kill is, unchanged, how the histories begin."""
    for workflow_id, before in evidence.before.items():
        after = evidence.after.get(workflow_id)
        if after is None or after.run_id != before.run_id:
            yield f"{workflow_id}: run {before.run_id} was in the log before the kill and is gone"
        elif after.turns[: len(before.turns)] != before.turns:
            yield f"{workflow_id}: its history does not begin with what the log held before the kill"


def nothing_ran_again(evidence: Evidence) -> Iterator[str]:
    """No activity whose completion was in the log before the kill ran after it."""
    recorded = {
        f"{history.run_id}/{event.activity_id}": workflow_id
        for workflow_id, history in evidence.before.items()
        for event in completed(history)
    }
    for execution in evidence.executions[evidence.ran_before :]:
        if execution.key in recorded:
            workflow_id = recorded[execution.key]
            yield f"{workflow_id}: {execution.activity} was completed, and ran again after the kill"


def attempts_are_true(evidence: Evidence) -> Iterator[str]:
    """Every attempt ran at most once, and every completed one is in the ledger."""
    ran = Counter((execution.key, execution.attempt) for execution in evidence.executions)
    for (key, attempt), times in ran.items():
        if times > 1:
            yield f"attempt {attempt} of activity {key} ran {times} times"
    for workflow_id, history in evidence.after.items():
        for event in completed(history):
            if not ran[f"{history.run_id}/{event.activity_id}", event.attempt]:
                yield f"{workflow_id}: activity {event.activity_id} is completed, but not in the ledger"


def no_gaps(evidence: Evidence) -> Iterator[str]:
    """Turns count from 1, and event ids too, without a gap, up to the close."""
    for workflow_id, history in evidence.after.items():
        next_event_id = 1
        for number, turn in enumerate(history.turns, start=1):
            if turn.turn != number:
                yield f"{workflow_id}: turn {number} is missing, turn {turn.turn} follows"
                break
            if (found := turn.first_event_id) != next_event_id:
                yield f"{workflow_id}: turn {number} begins with event {found}, expected {next_event_id}"
                break
            next_event_id += len(turn.events)


def undone_in_reverse(evidence: Evidence) -> Iterator[str]:
    """Compensations ran one after the other, latest step first, one for each completed step that has one."""
    for workflow_id, expected in EXPECTED.items():
        history = evidence.after.get(workflow_id)
        if history is None:
            continue
        undone = _undone(history)
        if undone != list(expected.undone):
            yield f"{workflow_id} was undone by {undone}, expected {list(expected.undone)}"
        if not undone:
            continue
        names = activity_types(history)
        first = next(number for number, name in names.items() if name in UNDOES)
        steps = [names.get(e.activity_id, "?") for e in completed(history) if e.activity_id < first]
        to_undo = [step for step in reversed(steps) if step in UNDOES.values()]
        if [UNDOES[name] for name in undone] != to_undo:
            yield f"{workflow_id} was undone by {undone}, though its steps were {steps}"
        ran = [e.activity for e in evidence.executions if e.run_id == history.run_id and e.activity in UNDOES]
        if list(dict.fromkeys(ran)) != undone:
            yield f"{workflow_id}: the ledger has the compensations {ran}, the history {undone}"


def one_effect_per_key(evidence: Evidence) -> Iterator[str]:
    """However often an activity was tried, the world changed once."""
    for key, times in Counter(effect.key for effect in evidence.effects).items():
        if times > 1:
            yield f"activity {key} had {times} effects"


CHECKS = (
    Check("the kill met runs inside activities, waits and a manual review", killed_at_work),
    Check("all outcomes are the expected ones", outcomes),
    Check("nothing that the log held before the kill is lost or changed", nothing_lost),
    Check("no activity that was completed before the kill ran again", nothing_ran_again),
    Check("each attempt ran at most once, and each completed one did run", attempts_are_true),
    Check("event ids have no gap", no_gaps),
    Check("compensations ran in reverse order", undone_in_reverse),
    Check("each idempotency key had one effect", one_effect_per_key),
)


def _running(history: History) -> set[int]:
    """Activities whose attempt was with a worker."""
    running: set[int] = set()
    for event in events_of(history):
        if isinstance(event, ActivityScheduled) and event.worker:
            running.add(event.activity_id)
        elif isinstance(event, ActivitiesDispatched):
            running.update(dispatch.activity_id for dispatch in event.dispatches)
        elif isinstance(event, ActivityCompleted | ActivityFailed | ActivityTimedOut | ActivityAttemptFailed):
            running.discard(event.activity_id)
    return running


def _waits(history: History) -> set[int]:
    """Timers that were started, are short, and did not fire."""
    waits: set[int] = set()
    for turn in history.turns:
        for event in turn.events:
            if isinstance(event, TimerStarted) and event.fire_time_ms - turn.time_ms < LONGEST_WAIT_MS:
                waits.add(event.timer_id)
            elif isinstance(event, TimerFired | TimerCanceled):
                waits.discard(event.timer_id)
    return waits


def _undone(history: History) -> list[str]:
    return [name for name in activity_types(history).values() if name in UNDOES]
