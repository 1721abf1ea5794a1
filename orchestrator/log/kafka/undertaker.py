"""Ends clients in the background: what ends them may wait for threads, sockets and name servers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from confluent_kafka import Consumer, KafkaException, Producer

PART_S = 1.0
"""What is under way when a process ends in order is given so long: a last beat, a last answer."""

CLOSE_S = 3.0
"""A process waits for the end of its clients for so long; then they end with it."""

DRAINS = 3
"""To flush, to learn of a fatal error, and to hear of what was purged."""


class Undertaker:
    """Each client is ended on a thread of its own, that does not keep the process alive."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def bury(self, producer: Producer) -> None:
        """End a producer whose records were purged."""
        self._start(lambda: _drain(producer, 0.1))

    def part(self, producer: Producer) -> None:
        """End a producer after what is under way has landed, or ``PART_S``."""
        self._start(lambda: _drain(producer, PART_S))

    def close(self, consumer: Consumer) -> None:
        """Let a consumer leave its group, and end it."""
        self._start(consumer.close)

    def wait(self) -> None:
        """Wait until all have ended, at most ``CLOSE_S``."""
        deadline_s = monotonic() + CLOSE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline_s - monotonic()))
        self._threads = [thread for thread in self._threads if thread.is_alive()]

    def _start(self, end: Callable[[], None]) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=end, name="kafka-client-end", daemon=True)
        self._threads.append(thread)
        thread.start()


def _drain(producer: Producer, timeout_s: float) -> None:
    """Run the last callbacks. The producer's memory goes with the last reference to it, which is this one."""
    for _ in range(DRAINS):
        try:
            if not producer.flush(timeout_s):
                return
            producer.purge(blocking=False)
        except KafkaException:  # a fatal error is raised once; it is why the producer ends
            continue
