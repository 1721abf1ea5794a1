"""The yardstick: what the same records cost without an engine, on the same broker.

A *loop* stands for the coordinator, a *worker* for the worker, and the process that measures is the client.
Each workflow of one activity is six records in five topics, as with the engine::

    client  start ──▶ commands            loop  commands ──▶ history ──▶ read back ──▶ tasks | replies
    worker  tasks ──▶ commands (done)     client  replies

``python -m bench.yardstick loop|worker BOOTSTRAP NAMESPACE`` is one of the processes.
"""

from __future__ import annotations

import sys
import time
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.roles import PARTITIONS
from orchestrator.log.topics import CLIENT_HEADER, COMMANDS, HISTORY, REPLIES, TASKS, WORKER_HEADER

RECORDS = 2_000
"""Brought by one poll, as by the engine's."""

WAIT_S = 0.01
ANSWER_S = 20.0
"""A loop without an answer for so long is broken."""

START, DONE = b"s", b"d"
"""The first byte of a key says which of the two commands it is, and of which turn the record is."""

SIZES = {COMMANDS: 170, HISTORY: 285, TASKS: 200, REPLIES: 180}
"""Bytes of a value: with these a record takes as much of the broker's disk as the engine's [measured]."""

_FILLER = {topic: bytes(size) for topic, size in SIZES.items()}


class Seen(NamedTuple):
    """Of a record that was read: what the next step needs. ``topic`` is the short name."""

    topic: str
    partition: int
    key: bytes


class Ends:
    """A consumer of some partitions from their ends, and a producer; both as the engine has them."""

    def __init__(self, bootstrap: str, namespace: str, places: list[tuple[str, int]]) -> None:
        at = {"bootstrap.servers": bootstrap, "socket.nagle.disable": True}
        self._namespace = namespace
        self._producer = Producer({**at, "linger.ms": 0, "acks": "all", "enable.idempotence": True})
        self._consumer = Consumer(
            {**at, "group.id": f"{namespace}.bare", "enable.auto.commit": False, "fetch.wait.max.ms": 50}
        )
        self._topics = {f"{namespace}.{topic}": topic for topic, _ in places}
        assigned = [TopicPartition(f"{namespace}.{topic}", partition) for topic, partition in places]
        for place in assigned:
            place.offset = self._consumer.get_watermark_offsets(place, timeout=ANSWER_S)[1]
        self._consumer.assign(assigned)

    def poll(self, timeout_s: float) -> list[Seen]:
        """What has come; sends what was appended."""
        self._producer.poll(0)
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        messages: list[Any] = [first, *self._consumer.consume(RECORDS, 0)]
        for message in messages:
            if message.error() is not None:
                raise RuntimeError(f"the yardstick cannot read: {message.error()}")
        return [Seen(self._topics[m.topic()], m.partition(), m.key()) for m in messages]

    def flush(self) -> None:
        """Send all that was appended."""
        self._producer.flush(ANSWER_S)

    def append(self, topic: str, partition: int, key: bytes, headers: Any = None) -> None:
        """Append a record of the size that the engine's has."""
        full = f"{self._namespace}.{topic}"
        while True:
            try:
                self._producer.produce(full, _FILLER[topic], key, partition, headers=headers)
            except BufferError:
                self._producer.poll(WAIT_S)
            else:
                return


def loop(bootstrap: str, namespace: str) -> None:
    """Consume, append, read back, append; without an end."""
    numbers = range(PARTITIONS)
    ends = Ends(bootstrap, namespace, [(topic, n) for topic in (COMMANDS, HISTORY) for n in numbers])
    print("ready:", flush=True)
    while True:
        for topic, partition, key in ends.poll(WAIT_S):
            if topic == COMMANDS:
                ends.append(HISTORY, partition, key)
            elif key.startswith(START):
                ends.append(TASKS, 0, key, [(WORKER_HEADER, bytes(32))])
            else:
                ends.append(REPLIES, 0, key, [(CLIENT_HEADER, bytes(32))])


def worker(bootstrap: str, namespace: str) -> None:
    """Consume, append; without an end."""
    ends = Ends(bootstrap, namespace, [(TASKS, 0)])
    print("ready:", flush=True)
    while True:
        for seen in ends.poll(WAIT_S):
            number = seen.key[1:]
            ends.append(COMMANDS, int(number) % PARTITIONS, DONE + number)


class Bare:
    """The client of the yardstick."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self._ends = Ends(bootstrap, namespace, [(REPLIES, 0)])
        self._next = 0

    def run(self, count: int, in_flight: int) -> list[float]:
        """Start so many workflows, so many at a time; returns how long each took, in seconds, sorted."""
        end = self._next + count
        began: dict[bytes, float] = {}
        took: list[float] = []
        while len(took) < count:
            while self._next < end and len(began) < in_flight:
                number = b"%d" % self._next
                began[number] = time.perf_counter()
                self._ends.append(COMMANDS, self._next % PARTITIONS, START + number)
                self._next += 1
            found = self._ends.poll(WAIT_S)
            now = time.perf_counter()
            took += [now - began.pop(seen.key[1:]) for seen in found]
            if now - min(began.values(), default=now) > ANSWER_S:
                raise RuntimeError(f"the yardstick has no answer for {ANSWER_S:.0f} s")
        self._ends.flush()
        return sorted(took)


if __name__ == "__main__":
    {"loop": loop, "worker": worker}[sys.argv[1]](*sys.argv[2:])
