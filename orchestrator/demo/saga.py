"""A saga in user code: what was done is undone, latest first, if the block ends with an error.

There is no magic in it: compensations are a list, and to compensate is to run activities.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import timedelta
from types import TracebackType
from typing import Any, Self, TypeVarTuple

from orchestrator import workflow
from orchestrator.errors import ActivityFailure

DEFERRED = "compensation-deferred"
"""The tag of a run that could not undo everything: somebody has to look at it."""

Ts = TypeVarTuple("Ts")


class Saga:
    """Remembers how to undo each step, and does so if the block fails, is cancelled, or runs out of time.

    ::

        async with Saga() as saga, asyncio.timeout(600):
            account = await workflow.execute_activity(open_account, ...)
            saga.on_failure(close_account, account)
            ...
    """

    def __init__(self) -> None:
        """Nothing to undo yet."""
        self._compensations: list[tuple[Callable[..., Coroutine[Any, Any, Any]], tuple[Any, ...]]] = []

    def on_failure(self, activity: Callable[[*Ts], Coroutine[Any, Any, Any]], *args: *Ts) -> None:
        """Undo a step that is done by this activity."""
        self._compensations.append((activity, args))

    async def compensate(self) -> None:
        """Undo all steps, latest first. One that fails for good is left to people, and the rest go on."""
        while self._compensations:
            activity, args = self._compensations.pop()
            try:
                await workflow.execute_activity(
                    activity, *args, start_to_close_timeout=10, schedule_to_close_timeout=timedelta(days=1)
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
