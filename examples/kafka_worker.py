"""A whole worker with only a Kafka client, an Avro library and the .avsc files; docs/wire.md has the reasons.

It serves the queue "measuring" of the workflow in http_worker.py. In three terminals, here:

    orchestrator coordinator http_worker --log kafka://127.0.0.1:9092
    python kafka_worker.py
    python kafka_start.py Measurement kitchen '"kitchen"'
"""

import json
import os
import sys
import time
import uuid
import zlib
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from math import inf

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from kafka_avro import Avro

BROKERS = os.environ.get("ORCHESTRATOR_LOG", "kafka://127.0.0.1:9092").removeprefix("kafka://")
NAMESPACE = os.environ.get("ORCHESTRATOR_NAMESPACE", "default")
COMMANDS, TASKS, WORKERS = (f"{NAMESPACE}.{name}" for name in ("commands", "tasks", "workers"))
ACTIVITIES = {"measure": lambda room: f"{room}: 70 °F, measured over Kafka"}
QUEUES, SLOTS = ["measuring"], 2
WORKER = uuid.uuid4().hex  # one life of this worker: each start is another
DELIVERY = ("run_id", "activity_id", "attempt", "dispatch")


class Worker:
    def __init__(self):
        # Nothing is given up (0): what was not acknowledged is sent until it is.
        sending = {"enable.idempotence": True, "message.timeout.ms": 0, "partitioner": "murmur2_random"}
        self.producer = Producer({"bootstrap.servers": BROKERS, "linger.ms": 0, **sending})
        reading = {"group.id": WORKER, "enable.auto.commit": False, "auto.offset.reset": "error"}
        self.consumer = Consumer({"bootstrap.servers": BROKERS, **reading})
        partitions = self.consumer.list_topics(TASKS, timeout=30).topics[TASKS].partitions
        self.inbox = TopicPartition(TASKS, zlib.crc32(WORKER.encode()) % len(partitions))
        places = [self.inbox, TopicPartition(WORKERS, 0)]
        for place in places:  # from their ends as of now, by hand: there is no group
            place.offset = self.consumer.get_watermark_offsets(place, timeout=30)[1]
        self.consumer.assign(places)
        self.tasks, self.beats, self.pool = Avro("tasks"), Avro("workers"), ThreadPoolExecutor(SLOTS)
        self.number, self.beat_at, self.proven_at, self.missed = 0, -inf, -inf, Counter()
        self.waiting, self.open, self.known = deque(), set(), set()

    def run(self):
        while True:
            self.producer.poll(0)
            if time.monotonic() >= self.beat_at:
                self.beat()
            if record := self.consumer.poll(0.05):
                if record.error():
                    raise KafkaException(record.error())
                (self.on_beat if record.topic() == WORKERS else self.waiting.append)(record)
            while self.waiting and time.monotonic() < self.proven_at + 5:  # else I may be given up
                self.on_task(self.waiting.popleft())

    def beat(self, **last):
        """Once per second, and not before the last one was answered: beats are never made up for."""
        sent_at, self.beat_at, self.number = time.monotonic(), inf, self.number + 1

        def answered():
            self.proven_at, self.beat_at = sent_at, sent_at + 1

        beat = {"worker": WORKER, "identity": "foreign", "number": self.number, "task_queues": QUEUES}
        beat |= {"slots": SLOTS, "running": len(self.open)}
        beat |= {"inbox": self.inbox.partition, "inbox_offset": self.inbox.offset, **last}
        self.send(WORKERS, WORKER, self.beats.encode("WorkerBeat", beat), answered)

    def on_beat(self, record):
        """Six beats of one coordinator between two of mine: others run by now what runs here."""
        kind, beat = self.beats.decode(record.value())
        if kind == "CoordinatorBeat":
            self.missed[beat["coordinator"]] += 1
        elif kind == "WorkerBeat" and beat["worker"] == WORKER:
            if beat["number"] > 1 and max(self.missed.values(), default=0) >= 6:
                sys.exit("given up by the coordinators; start me again")
            self.missed.clear()

    def on_task(self, record):
        self.inbox.offset = record.offset() + 1
        if dict(record.headers() or ()).get("worker") != WORKER.encode():
            return  # another worker reads this partition too
        kind, task = self.tasks.decode(record.value())
        if kind != "ActivityTask" or (delivery := tuple(map(task.get, DELIVERY))) in self.known:
            return  # a CancelTask (nothing here takes long), or a repeat
        stale = record.timestamp()[1] - task["dispatched_time_ms"] > 30_000
        full = len(self.open) >= SLOTS
        self.known.add(delivery)
        self.open.add(delivery)
        if stale or full:
            self.report("ReturnActivity", task, reason="stale" if stale else "no-slot")
        else:
            self.pool.submit(self.attempt, task)

    def attempt(self, task):
        try:
            arguments = [json.loads(payload["data"]) for payload in task["input"]]
            activity = ACTIVITIES[task["activity_type"]]
            self.report("CompleteActivity", task, result=activity(*arguments))
        except Exception as error:
            failure = {"type": type(error).__name__, "message": str(error)}
            self.report("FailActivity", task, failure=failure)

    def report(self, kind, task, **more):
        delivery = tuple(map(task.get, DELIVERY))
        command = {"command": kind, "request_id": "/".join(map(str, delivery)), "identity": "foreign"}
        command |= {name: task[name] for name in ("workflow_id", "worker", *DELIVERY)} | more
        self.send(COMMANDS, task["workflow_id"], json.dumps(command), lambda: self.open.discard(delivery))

    def send(self, topic, key, value, durable):
        """Call ``durable`` when the record is; one that is refused for good ends this worker."""

        def delivered(error, _):
            if error:
                raise KafkaException(error)
            durable()

        self.producer.produce(topic, value, key, on_delivery=delivered)


if __name__ == "__main__":
    worker = Worker()
    print("serving the queue 'measuring'", flush=True)
    try:
        worker.run()
    except KeyboardInterrupt:
        worker.pool.shutdown()
        worker.beat(draining=True, stopped=True)
        worker.producer.flush(30)
