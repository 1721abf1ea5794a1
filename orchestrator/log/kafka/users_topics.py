"""What users' topics take, looked up in the background, so that deciding never waits for the cluster."""

from __future__ import annotations

import queue
import threading
import time
from typing import Final, NamedTuple

from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.log.kafka.cluster import Cluster
from orchestrator.log.kafka.settings import KafkaSettings

GOOD_FOR_S = 60.0
"""A topic that took records is looked at again after so long: it may have been deleted."""

BAD_FOR_S = 2.0
"""One that does not is looked at sooner: somebody is about to make it, and runs wait."""

FRAME_BYTES = 100
"""What a batch adds to a record."""


class _Known(NamedTuple):
    until_s: float
    reason: str
    max_bytes: int


_NOTHING = _Known(0.0, "", 0)


class UsersTopics:
    """Remembers what is known of each topic. The thread that looks is started by the first question."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Connect to nothing yet."""
        self._settings = settings
        self._known: dict[str, _Known] = {}
        self._asked: set[str] = set()
        self._lock = threading.Lock()
        self._questions: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def refusal(self, topic: str, size_bytes: int) -> str:
        """Why a topic would refuse a record of that size, as far as is known; "" if it may take it."""
        if topic.startswith(self._settings.topic("")):
            return f"topic {topic!r} is one of the engine's own; publish to a topic of yours"
        known = self._known.get(topic, _NOTHING)
        if time.monotonic() > known.until_s:
            self._ask(topic)
        if known.reason:
            return known.reason
        if known.max_bytes and size_bytes + FRAME_BYTES > known.max_bytes:
            return (
                f"topic {topic!r} takes records of at most {known.max_bytes} bytes, this one has "
                f"{size_bytes}; raise its max.message.bytes, or publish less"
            )
        return ""

    def close(self) -> None:
        """End the thread, which may take as long as an answer."""
        self._questions.put(None)

    def _ask(self, topic: str) -> None:
        with self._lock:
            if topic in self._asked:
                return
            self._asked.add(topic)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="users-topics", daemon=True)
                self._thread.start()
        self._questions.put(topic)

    def _look(self) -> None:
        cluster: Cluster | None = None
        while (topic := self._questions.get()) is not None:
            try:
                cluster = cluster or Cluster(self._settings)
                reason, max_bytes = _state(cluster, topic)
            except ConfigError as error:  # it says what is not allowed
                reason, max_bytes = str(error), 0
            except OrchestratorError:  # no answer: nothing is known, and nothing is refused
                cluster, reason, max_bytes = None, "", 0
            until_s = time.monotonic() + (BAD_FOR_S if reason else GOOD_FOR_S)
            self._known[topic] = _Known(until_s, reason, max_bytes)
            with self._lock:
                self._asked.discard(topic)


NEEDED: Final = "WRITE"
"""What the cluster must let us do with a topic."""


def _state(cluster: Cluster, topic: str) -> tuple[str, int]:
    """Why a topic takes nothing at all, and the most that a record on it may have."""
    found = cluster.topics([topic]).get(topic)
    if found is None:
        return f"topic {topic!r} does not exist, or may not be seen; create it, or allow it", 0
    if found.allowed and NEEDED not in found.allowed:
        return f"topic {topic!r} may not be written to; give the coordinators the right to {NEEDED}", 0
    limit = cluster.settings_of([topic])[topic].get("max.message.bytes", "0")
    return "", int(limit)
