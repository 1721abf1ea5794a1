"""Who lives: the workers and coordinators that beat, as a view has heard of them. No I/O."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.protocol.tasks import Beat, CoordinatorBeat, WorkerBeat
from orchestrator.protocol.views import CoordinatorSeen, WorkerSeen

FORGOTTEN_AFTER_MS = 60_000
"""Who was silent for so long is gone, and not shown any more. Beats come once per second."""


class Roster:
    """The last beat of each, with the time at which it came. Bounded by who beats within a minute."""

    def __init__(self) -> None:
        self._beats: dict[str, tuple[int, Beat]] = {}

    def take(self, beat: Beat, now_ms: int) -> None:
        """A beat came. Who says that it stops is gone at once."""
        name = beat.worker if isinstance(beat, WorkerBeat) else beat.coordinator
        self._beats.pop(name, None)
        if not beat.stopped:
            self._beats[name] = (now_ms, beat)
        for other in list(self._beats):  # oldest first
            if self._beats[other][0] >= now_ms - FORGOTTEN_AFTER_MS:
                break
            del self._beats[other]

    def workers(self, now_ms: int) -> tuple[WorkerSeen, ...]:
        """All workers that may be alive, by name."""
        return tuple(
            WorkerSeen(beat=beat, silent_ms=silent_ms)
            for silent_ms, beat in self._seen(now_ms)
            if isinstance(beat, WorkerBeat)
        )

    def coordinators(self, now_ms: int) -> tuple[CoordinatorSeen, ...]:
        """All coordinators that may be alive, by name."""
        return tuple(
            CoordinatorSeen(beat=beat, silent_ms=silent_ms)
            for silent_ms, beat in self._seen(now_ms)
            if isinstance(beat, CoordinatorBeat)
        )

    def _seen(self, now_ms: int) -> Iterator[tuple[int, Beat]]:
        for _, (at_ms, beat) in sorted(self._beats.copy().items()):
            if at_ms >= now_ms - FORGOTTEN_AFTER_MS:
                yield max(0, now_ms - at_ms), beat
