"""The activities of one run, as its code sees them: what it started, and what became of each."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator.codec import failures
from orchestrator.codec.payloads import PayloadConverter
from orchestrator.errors import CanceledError, PayloadError
from orchestrator.protocol.actions import Action, RequestCancelActivity, ScheduleActivity
from orchestrator.protocol.events import (
    ActivityCanceled,
    ActivityCompleted,
    ActivityFailed,
    ActivityTimedOut,
)
from orchestrator.protocol.values import CancellationType, RetryState
from orchestrator.workflow.handles import ActivityHandle
from orchestrator.workflow.loop import WorkflowLoop
from orchestrator.workflow.outcomes import activity_failure, never_asked

Actions = dict[tuple[type, int], Action]
"""What the code asked for in this activation, in order; by kind and number, so that it can be taken back."""


class Activities:
    """Started activities by number, from 1. What the code cancelled and no longer awaits is forgotten.

    A fact about an activity that the code never asked for raises ``NotDeterministic``.
    """

    __slots__ = ("_actions", "_converter", "_handles", "_last", "_loop")

    def __init__(
        self,
        loop: WorkflowLoop,
        actions: Actions,
        converter: PayloadConverter,
    ) -> None:
        """What is asked for goes into ``actions``."""
        self._loop = loop
        self._actions = actions
        self._converter = converter
        self._handles: dict[int, ActivityHandle[Any]] = {}
        self._last = 0

    @property
    def next_id(self) -> int:
        """The number of the next activity."""
        return self._last + 1

    def schedule(self, action: ScheduleActivity, hint: Any) -> ActivityHandle[Any]:
        """Ask for the activity :attr:`next_id`; its result is decoded as ``hint``."""
        loop = self._loop
        loop.guard("starting an activity")
        number = self._last = action.activity_id
        self._actions[ScheduleActivity, number] = action
        handle: ActivityHandle[Any] = ActivityHandle(
            loop=loop,
            number=loop.next_number(),
            activity_id=number,
            activity_type=action.activity_type,
            cancellation_type=action.cancellation_type,
            hint=hint,
            ask_cancel=self._cancel,
        )
        self._handles[number] = handle
        return handle

    def forget(self) -> None:
        """The instance is dropped."""
        self._handles.clear()

    def on_completed(self, fact: ActivityCompleted) -> None:
        """Its handle has the result."""
        handle = self._take(fact.activity_id)
        if handle is None:
            return
        try:
            result = None if fact.result is None else self._converter.from_payload(fact.result, handle.hint)
        except PayloadError as error:
            message = f"the result of activity {handle.activity_type!r} cannot be decoded: {error}"
            handle.set_exception(PayloadError(message))
        else:
            handle.set_result(result)

    def on_failed(self, fact: ActivityFailed | ActivityTimedOut) -> None:
        """Its handle raises ``ActivityFailure``."""
        handle = self._take(fact.activity_id)
        if handle is not None:
            words = "timed out" if isinstance(fact, ActivityTimedOut) else "failed"
            cause = failures.from_failure(fact.failure, self._converter)
            handle.set_exception(activity_failure(handle, words, fact.attempt, fact.retry_state, cause))

    def on_canceled(self, fact: ActivityCanceled) -> None:
        """Its handle is cancelled, or raises ``ActivityFailure`` if it was not the code that asked."""
        handle = self._take(fact.activity_id)
        if handle is None:
            return
        if handle.cancel_requested:
            asyncio.Future.cancel(handle)
        else:
            cause = CanceledError("the activity was cancelled")
            handle.set_exception(
                activity_failure(handle, "was cancelled", fact.attempt, RetryState.CANCEL_REQUESTED, cause)
            )

    def _take(self, activity_id: int) -> ActivityHandle[Any] | None:
        """The handle that waits for a closed activity; None if the code cancelled it and went on."""
        if activity_id > self._last:
            raise never_asked("activity", activity_id, self._last)
        return self._handles.pop(activity_id, None)

    def _cancel(self, handle: ActivityHandle[Any]) -> bool:
        """Cancel an activity as its type says; whether its handle is cancelled now."""
        self._loop.guard("cancelling an activity")
        number = handle.activity_id
        abandoned = handle.cancellation_type is CancellationType.ABANDON
        if not abandoned and self._actions.pop((ScheduleActivity, number), None) is None:
            if not handle.cancel_requested:
                handle.cancel_requested = True
                self._actions[RequestCancelActivity, number] = RequestCancelActivity(activity_id=number)
            if handle.cancellation_type is CancellationType.WAIT_CANCELLATION_COMPLETED:
                return False
        self._handles.pop(number, None)
        return True
