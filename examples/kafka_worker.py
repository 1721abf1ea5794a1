"""A whole worker with only a Kafka client, an Avro library and the .avsc files; docs/wire.md has the reasons.

It serves the queue "measuring" of the workflow in http_worker.py. In three terminals, here:

    orchestrator coordinator http_worker --log kafka://127.0.0.1:9092
    python kafka_worker.py
    python kafka_start.py Measurement kitchen '"kitchen"'
"""

import io
import json
import os
import struct
import sys
import time
import uuid
import zlib
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from math import inf
from pathlib import Path

import fastavro
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from fastavro.schema import fingerprint, to_parsing_canonical_form

BROKERS = os.environ.get("ORCHESTRATOR_LOG", "kafka://127.0.0.1:9092").removeprefix("kafka://")
NAMESPACE = os.environ.get("ORCHESTRATOR_NAMESPACE", "default")
COMMANDS, TASKS, WORKERS = (f"{NAMESPACE}.{name}" for name in ("commands", "tasks", "workers"))
SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
ACTIVITIES = {"measure": lambda room: f"{room}: 70 °F, measured over Kafka"}
SLOTS = 2
WORKER = uuid.uuid4().hex  # one life of this worker: each start is another
DELIVERY = ("run_id", "activity_id", "attempt", "dispatch")


class Avro:
    """The records of a topic: a zero byte, the id of the schema in 4 bytes, and Avro."""

    def __init__(self, topic):
        schema = json.loads((SCHEMAS / f"{topic}.avsc").read_text())
        number = int(fingerprint(to_parsing_canonical_form(schema), "SHA-256")[:8], 16) & 0x7FFFFFFF
        self.prefix, self.schema = struct.pack(">xI", number), fastavro.parse_schema(schema)

    def encode(self, kind, fields):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, self.schema, (kind, fields))
        return self.prefix + out.getvalue()

    def decode(self, value):
        if value[:5] != self.prefix:  # of another version, whose schema is on `meta`
            return "unknown", {}
        options = {"return_record_name": True, "return_record_name_override": True}
        name, fields = fastavro.schemaless_reader(io.BytesIO(value[5:]), self.schema, **options)
        return name.rpartition(".")[2], fields


class Worker:
    def __init__(self):
        # Nothing is given up (0): what was not acknowledged is sent until it is.
        sending = {"enable.idempotence": True, "message.timeout.ms": 0, "partitioner": "murmur2_random"}
        self.producer = Producer({"bootstrap.servers": BROKERS, "linger.ms": 0, **sending})
        reading = {"group.id": WORKER, "enable.auto.commit": False, "auto.offset.reset": "error"}
        self.consumer = Consumer({"bootstrap.servers": BROKERS, **reading})
        partitions = self.consumer.list_topics(TASKS, timeout=30).topics[TASKS].partitions
        places = [TopicPartition(TASKS, zlib.crc32(WORKER.encode()) % len(partitions))]
        places.append(TopicPartition(WORKERS, 0))
        for place in places:  # from their ends as of now, by hand: there is no group
            place.offset = self.consumer.get_watermark_offsets(place, timeout=30)[1]
        self.consumer.assign(places)
        self.inbox, self.inbox_offset = places[0].partition, places[0].offset
        self.tasks, self.beats, self.pool = Avro("tasks"), Avro("workers"), ThreadPoolExecutor(SLOTS)
        self.number, self.beat_at, self.proven_at = 0, -inf, -inf
        self.missed, self.waiting = Counter(), deque()
        self.open, self.reported, self.append_time_ms = set(), {}, 0

    def run(self):
        while True:
            self.producer.poll(0)
            if time.monotonic() >= self.beat_at:
                self.beat()
            record = self.consumer.poll(0.05)
            if record is not None and record.error():
                raise KafkaException(record.error())
            if record is not None:
                (self.on_beat if record.topic() == WORKERS else self.waiting.append)(record)
            while self.waiting and time.monotonic() < self.proven_at + 5:  # else I may be given up
                self.on_task(self.waiting.popleft())

    def beat(self, **last):
        """Once per second, and not before the last one was answered: beats are never made up for."""
        sent_at, self.beat_at, self.number = time.monotonic(), inf, self.number + 1
        beat = {"worker": WORKER, "identity": "foreign", "number": self.number, "slots": SLOTS}
        beat |= {"task_queues": ["measuring"], "running": len(self.open)}
        beat |= {"inbox": self.inbox, "inbox_offset": self.inbox_offset, **last}

        def answered(*_):
            self.proven_at, self.beat_at = sent_at, sent_at + 1

        value = self.beats.encode("orchestrator.workers.WorkerBeat", beat)
        self.producer.produce(WORKERS, value, WORKER, on_delivery=answered)

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
        self.inbox_offset, self.append_time_ms = record.offset() + 1, record.timestamp()[1]
        if dict(record.headers() or ()).get("worker") != WORKER.encode():
            return  # another worker reads this partition too
        kind, task = self.tasks.decode(record.value())
        delivery = tuple(task.get(name) for name in DELIVERY)
        forgotten = self.append_time_ms - 300_000
        self.reported = {known: at for known, at in self.reported.items() if at > forgotten}
        if kind != "ActivityTask" or delivery in self.open or delivery in self.reported:
            return  # a CancelTask (nothing here takes long), or a repeat
        full = len(self.open) >= SLOTS
        self.open.add(delivery)
        if self.append_time_ms - task["dispatched_time_ms"] > 30_000:
            self.report("ReturnActivity", task, reason="stale")
        elif full:
            self.report("ReturnActivity", task, reason="no-slot")
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
        delivery = tuple(task[name] for name in DELIVERY)
        command = {"command": kind, "request_id": "/".join(map(str, delivery)), "identity": "foreign"}
        command |= {name: task[name] for name in ("workflow_id", "worker", *DELIVERY)} | more

        def durable(error, _):
            self.open.discard(delivery)
            self.reported[delivery] = self.append_time_ms

        self.producer.produce(COMMANDS, json.dumps(command), task["workflow_id"], on_delivery=durable)


def main():
    worker = Worker()
    print("serving the queue 'measuring'", flush=True)
    try:
        worker.run()
    except KeyboardInterrupt:
        worker.pool.shutdown()
        worker.beat(draining=True, stopped=True)
        worker.producer.flush(30)


if __name__ == "__main__":
    main()
