"""A saga in user code: what was begun is undone, latest first, if the block ends with an error.

There is no magic in it: compensations are a list, and to compensate is to run activities.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVar, TypeVarTuple

from orchestrator import workflow
from orchestrator.errors import ActivityFailure

ATTEMPT = timedelta(seconds=10)
"""For one attempt of a step, or of what undoes it."""

DEFERRED = "compensation-deferred"
"""The tag of a run that could not undo everything: somebody has to look at it."""

Ts = TypeVarTuple("Ts")
R = TypeVar("R")


class Saga:
    """Remembers how to undo each step, and does so if the block fails, is cancelled, or runs out of time.

    ::

        async with Saga() as saga, asyncio.timeout(600):
            account = await saga.step(open_account, customer, undo=close_account)
            ...
    """

    def __init__(self) -> None:
        """Nothing to undo yet."""
        self._compensations: list[tuple[Callable[..., Coroutine[Any, Any, Any]], tuple[Any, ...]]] = []

    async def step(
        self,
        activity: Callable[[*Ts], Coroutine[Any, Any, R]],
        *args: *Ts,
        undo: Callable[[*Ts], Coroutine[Any, Any, Any]] | None = None,
    ) -> R:
        """Run an activity; ``undo`` takes back what it did, and is given the same arguments.

        A step that fails, or is cancelled in the middle, may have had its effect or not, and nobody can tell.
        So ``undo`` is remembered before the step begins, and must bear that there is nothing to undo. And a
        cancelled step is awaited until it is closed, so that its effect cannot come after it was undone.
        """
        if undo is not None:
            self._compensations.append((undo, args))
        result = await workflow.execute_activity(
            activity,
            *args,
            start_to_close_timeout=ATTEMPT,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # the step was done all the same; no other shall follow
            raise asyncio.CancelledError
        return result

    async def compensate(self) -> None:
        """Undo all steps, latest first. One that fails for good is left to people, and the rest go on."""
        while self._compensations:
            activity, args = self._compensations.pop()
            try:
                await workflow.execute_activity(
                    activity,
                    *args,
                    start_to_close_timeout=ATTEMPT,
                    schedule_to_close_timeout=timedelta(days=1),
                )
            except ActivityFailure as failure:
                workflow.logger.error("compensation deferred: %s: %s", failure, failure.cause)
                workflow.add_tag(DEFERRED)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            await self.compensate()
