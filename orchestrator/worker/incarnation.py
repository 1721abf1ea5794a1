"""When a worker's incarnation beats, when it may start attempts, and when it has to give itself up.

Rules only: no I/O and no clock; ``now`` is any clock in seconds that never goes back. A coordinator
declares a worker dead after it has read ``LOST_AFTER_BEATS`` beats of its own since the worker's last
regular one. The worker reads the same topic, so both come to the same verdict from the same records:

- it starts attempts only while a beat of its own, sent less than ``FRESH_S`` ago, has come back;
- if that many beats of one coordinator lie between two of its own, it was declared dead, and goes on
  as a new incarnation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from msgspec.structs import replace

from orchestrator.log.aio import DeliveredBeat
from orchestrator.protocol.tasks import CoordinatorBeat, WorkerBeat

BEAT_INTERVAL_S = 1.0
"""Between regular beats, which alone count as signs of life. Never caught up in a burst."""

CHANGE_INTERVAL_S = 0.05
"""Between beats of any kind: changes in between are merged, so there are at most 20 beats per second."""

FRESH_S = 5.0
"""How long a beat that was read back permits to start attempts. Six beats of a coordinator span 5 s."""

LOST_AFTER_BEATS = 6
"""So many beats of one coordinator without one of the worker mean that the worker is gone."""


class Load(NamedTuple):
    """What changes from beat to beat."""

    running: int
    inbox_offset: int
    draining: bool = False


class Incarnation:
    """One life of a worker as its beats show it.

    Args:
        first: the first beat; its ``worker`` names the incarnation, later beats are like it but for
            their number and load.
    """

    def __init__(self, first: WorkerBeat) -> None:
        self.worker = first.worker
        self.lost = False
        """Coordinators have declared this incarnation dead: it must not go on."""
        self._template = first
        self._number = 0
        self._outstanding = False
        self.shown: Load | None = None
        self._last_at = -inf
        self._last_regular_at = -inf
        self._sent_at: dict[int, float] = {}
        self._proven_at = -inf
        self._beats_since_mine: Counter[str] = Counter()
        self._seen_myself = False

    def next_beat(self, load: Load, now: float) -> WorkerBeat | None:
        """The beat to send now, if one is due. Until it is acknowledged, or failed, there is no other."""
        if now < self.due_at(load):
            return None
        regular = now >= self._last_regular_at + BEAT_INTERVAL_S
        return self._beat(load, now, regular=regular)

    def due_at(self, load: Load) -> float:
        """When :meth:`next_beat` has one for this load, as things stand; infinite while one is on its way."""
        if self._outstanding:
            return inf
        regular_at = self._last_regular_at + BEAT_INTERVAL_S
        return regular_at if load == self.shown else min(regular_at, self._last_at + CHANGE_INTERVAL_S)

    def last_beat(self, load: Load, now: float) -> WorkerBeat:
        """The beat that says goodbye; nothing comes after it."""
        return replace(self._beat(load, now, regular=True), draining=True, stopped=True)

    def sent(self) -> None:
        """The beat on its way was acknowledged, or it failed: the next one may follow in its time."""
        self._outstanding = False

    def read_back(self, beats: Iterable[DeliveredBeat]) -> None:
        """Take note of the next beats on the log, in order."""
        for delivered in beats:
            beat = delivered.beat
            if isinstance(beat, CoordinatorBeat):
                self._beats_since_mine[beat.coordinator] += 1
            elif beat.worker == self.worker and beat.regular:
                self._mine_came_back(beat)

    def may_start(self, now: float) -> bool:
        """Whether attempts may be started: no coordinator can have missed this incarnation yet."""
        return not self.lost and now < self._proven_at + FRESH_S

    def give_up(self) -> None:
        """Treat this incarnation as lost, because what happened on the log can no longer be known."""
        self.lost = True

    def _beat(self, load: Load, now: float, *, regular: bool) -> WorkerBeat:
        self._number += 1
        self._outstanding = True
        self.shown = load
        self._last_at = now
        if regular:
            self._last_regular_at = now
            self._sent_at[self._number] = now
        return replace(
            self._template,
            number=self._number,
            regular=regular,
            running=load.running,
            inbox_offset=load.inbox_offset,
            draining=load.draining,
        )

    def _mine_came_back(self, beat: WorkerBeat) -> None:
        missed = max(self._beats_since_mine.values(), default=0)
        if self._seen_myself and missed >= LOST_AFTER_BEATS:
            self.lost = True
        self._seen_myself = True
        self._beats_since_mine.clear()
        # A send that was thought to have failed may come back late, after its successor.
        self._proven_at = max(self._proven_at, self._sent_at.get(beat.number, -inf))
        self._sent_at = {number: at for number, at in self._sent_at.items() if number > beat.number}
