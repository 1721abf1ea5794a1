"""Prints what happened to a workflow id, with only a Kafka client, an Avro library and the .avsc files.

python kafka_history.py kitchen
"""

import json
import os
import struct
import sys

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from kafka_avro import Avro

BROKERS = os.environ.get("ORCHESTRATOR_LOG", "kafka://127.0.0.1:9092").removeprefix("kafka://")
NAMESPACE = os.environ.get("ORCHESTRATOR_NAMESPACE", "default")


def murmur2(data):
    """The hash by which Java clients place a key."""
    h, mask = 0x9747B28C ^ len(data), 0xFFFFFFFF
    whole = len(data) // 4 * 4
    for (word,) in struct.iter_unpack("<I", data[:whole]):
        k = word * 0x5BD1E995 & mask
        h = (h * 0x5BD1E995 & mask) ^ ((k ^ k >> 24) * 0x5BD1E995 & mask)
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * 0x5BD1E995 & mask
    h = (h ^ h >> 13) * 0x5BD1E995 & mask
    return h ^ h >> 15


def records(consumer, topic, partition):
    """All records that a partition has now, as (key, value)."""
    consumer.assign([TopicPartition(f"{NAMESPACE}.{topic}", partition, OFFSET_BEGINNING)])
    while True:
        record = consumer.poll(30)
        if record is None:
            sys.exit(f"no answer from {BROKERS}")
        if record.error():
            if record.error().code() == KafkaError._PARTITION_EOF:
                return
            raise KafkaException(record.error())
        yield record.key(), record.value()


def history_avro(consumer):
    """What decodes history: by the schema in the file, and by those that other versions left on `meta`."""
    avro = Avro("history")
    for key, value in records(consumer, "meta", 0):
        if key.startswith(b"schema/") and value is not None:
            avro.schemas.setdefault(int(key[7:]), fastavro.parse_schema(json.loads(value)))
    return avro


def valid_turns(avro, found):
    """The turns that count, by run: the rule of validity."""
    epoch, seq, parts, runs = 0, 0, [], {}
    for key, value in found:
        if value is None:  # a tombstone; a run without its first turn is no run
            run_id, turn, *rest = key.decode().split("/")
            if turn == "1" and run_id in runs and int(rest[0]) == runs[run_id][0]["epoch"]:
                del runs[run_id]
            continue
        kind, record = avro.decode(value)
        if kind == "Claim":
            if record["epoch"] > epoch:
                epoch, seq, parts = record["epoch"], 0, []
        elif record["epoch"] == epoch and record["seq"] > seq:
            seq = record["seq"]
            if kind == "Turn":
                parts = [record] if record["part"] == 0 else [*parts, record]
                if record["parts"]:  # the last part, which says how many there are
                    if record["parts"] == len(parts) and (record["turn"] == 1 or record["run_id"] in runs):
                        whole = {**parts[0], "events": [event for part in parts for event in part["events"]]}
                        runs.setdefault(record["run_id"], []).append(whole)
                    parts = []
    return runs


def main(workflow_id):
    options = {"bootstrap.servers": BROKERS, "group.id": "kafka_history", "enable.auto.commit": False}
    consumer = Consumer({**options, "enable.partition.eof": True})
    topics = consumer.list_topics(timeout=30).topics
    if f"{NAMESPACE}.history" not in topics:
        sys.exit(f"there is no namespace {NAMESPACE!r} at {BROKERS}")
    partitions = len(topics[f"{NAMESPACE}.history"].partitions)
    avro = history_avro(consumer)
    home = (murmur2(workflow_id.encode()) & 0x7FFFFFFF) % partitions
    for run_id, turns in valid_turns(avro, records(consumer, "history", home)).items():
        if turns[0]["workflow_id"] == workflow_id:
            print(f"run {run_id}")
            for turn in turns:
                for number, (name, fields) in enumerate(turn["events"], turn["first_event_id"]):
                    said = {field: value for field, value in fields.items() if value}
                    print(f"{number:>5}  {name.rpartition('.')[2]}  {json.dumps(said, default=bytes.decode)}")
    consumer.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} WORKFLOW_ID")
    main(sys.argv[1])
