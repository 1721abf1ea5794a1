"""What workflow code holds of an activity that it started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from orchestrator.protocol.values import CancellationType

ResultT = TypeVar("ResultT")


class ActivityHandle(asyncio.Future[ResultT]):
    """A started activity: a future of its result. Await it, or cancel it.

    Awaiting raises :class:`~orchestrator.errors.ActivityFailure` if the activity fails for good, and
    ``asyncio.CancelledError`` if this handle, or the task that awaits it, was cancelled. What a
    cancellation does is decided by the activity's ``cancellation_type``:

    - ``TRY_CANCEL``: the worker is told, and the code goes on at once;
    - ``WAIT_CANCELLATION_COMPLETED``: the worker is told, and the code goes on when the activity is
      closed. It may have completed nevertheless: then the handle has its result;
    - ``ABANDON``: the worker is not told, and the code goes on at once.

    Attributes:
        activity_id: the activity's number within the run.
        activity_type: its name.
        cancellation_type: see above.
        hint: what the result is decoded as.
        number: its place among the futures of the run.
        cancel_requested: the worker was told.
    """

    __slots__ = (
        "_ask_cancel",
        "activity_id",
        "activity_type",
        "cancel_requested",
        "cancellation_type",
        "hint",
        "number",
    )

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        number: int,
        activity_id: int,
        activity_type: str,
        cancellation_type: CancellationType,
        hint: Any,
        ask_cancel: Callable[[ActivityHandle[Any]], bool],
    ) -> None:
        super().__init__(loop=loop)
        self.number = number
        self.activity_id = activity_id
        self.activity_type = activity_type
        self.cancellation_type = cancellation_type
        self.hint = hint
        self.cancel_requested = False
        self._ask_cancel = ask_cancel

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask to cancel the activity; False if it is closed already."""
        if self.done():
            return False
        if self._ask_cancel(self):
            return super().cancel(msg)
        return True
