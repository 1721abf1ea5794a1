"""Whether this machine's clock can be trusted: its own beats come back with the log's time of append.

A beat is sent, then appended, then read. If both clocks agree, the time of append lies between the other
two, however long a broker was away or this process was paused in between. By how much it lies outside is
what the clocks differ at least: never a false alarm.
"""

from __future__ import annotations

from collections import deque

MAX_SKEW_MS = 5_000
"""Timers of a clock that is further off fire at times that surprise people. NTP keeps it below 100 ms."""

DECISIVE_MS = 1_000
"""A beat that took longer may accuse a clock, but not acquit it: the less it took, the closer the bounds."""

KEPT_BEATS = 64
"""Sent and not read yet. Older ones judge nothing: whoever is so far behind has other worries."""


class ClockCheck:
    """Remembers when beats were sent. Times are Unix milliseconds."""

    def __init__(self) -> None:
        """Nothing was sent yet: the clock is taken for right."""
        self.skew_ms = 0
        """By how much this machine's clock is ahead, at least; negative if it is behind."""
        self._sent: deque[tuple[int, int]] = deque(maxlen=KEPT_BEATS)

    @property
    def trusted(self) -> bool:
        """Whether the clock is right enough to decide by."""
        return abs(self.skew_ms) <= MAX_SKEW_MS

    def sent(self, number: int, now_ms: int) -> None:
        """A beat of this number is being sent."""
        self._sent.append((number, now_ms))

    def read(self, number: int, append_ms: int, now_ms: int) -> None:
        """The beat of this number was read, appended at this time by the log's clock."""
        while self._sent and self._sent[0][0] < number:
            self._sent.popleft()
        if self._sent and self._sent[0][0] == number:
            _, sent_ms = self._sent.popleft()
            skew_ms = max(0, sent_ms - append_ms) - max(0, append_ms - now_ms)
            if abs(skew_ms) > MAX_SKEW_MS or now_ms - sent_ms <= DECISIVE_MS:
                self.skew_ms = skew_ms
