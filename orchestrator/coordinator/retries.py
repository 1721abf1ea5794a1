"""When the code of blocked runs is tried again: soon at first, then ever later; one run at a time."""

from __future__ import annotations

import heapq

import msgspec

BLOCKED_RETRY_S = (1.0, 600.0)
"""First and longest delay before a blocked run's code is tried again; it doubles each time."""

MAX_DOUBLINGS = 30
"""Of that delay: it is the longest long before, and a run may stay blocked for ever."""


class _Delay(msgspec.Struct, gc=False):
    """How often a run was tried, and when it is next."""

    tries: int = 0
    due_s: float = 0.0


class Retries:
    """The blocked runs of one partition.

    What is known of them outlives claims: code that takes long to give way may cost one, and would be tried
    at once after it, again and again. All times are monotonic seconds.
    """

    def __init__(self) -> None:
        """Nothing is blocked."""
        self._delays: dict[str, _Delay] = {}
        self._due: list[tuple[float, str]] = []

    def blocked(self, run_id: str, workflow_id: str, now_s: float) -> None:
        """The code of a run could not go on."""
        first_s, longest_s = BLOCKED_RETRY_S
        delay = self._delays.setdefault(run_id, _Delay())
        delay.due_s = now_s + min(first_s * 2.0 ** min(delay.tries, MAX_DOUBLINGS), longest_s)
        delay.tries += 1
        heapq.heappush(self._due, (delay.due_s, workflow_id))

    def over(self, run_id: str) -> None:
        """A run goes on, or is closed."""
        self._delays.pop(run_id, None)

    def waits(self, run_id: str, now_s: float) -> bool:
        """Whether a run's code is not to be tried yet."""
        delay = self._delays.get(run_id)
        return delay is not None and now_s < delay.due_s

    def restock(self) -> None:
        """The partition was claimed anew: its blocked runs are told one by one, by :meth:`still_blocked`."""
        self._due = []

    def still_blocked(self, run_id: str, workflow_id: str) -> None:
        """A run is blocked, as history says. One that this process has not tried is tried at once."""
        delay = self._delays.get(run_id)
        heapq.heappush(self._due, (delay.due_s if delay is not None else 0.0, workflow_id))

    @property
    def next_s(self) -> float | None:
        """When the next run is due; None if none is blocked."""
        return self._due[0][0] if self._due else None

    def take(self) -> str:
        """The workflow id of the run that is due next."""
        return heapq.heappop(self._due)[1]
