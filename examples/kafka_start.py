"""Starts a workflow with nothing but a Kafka client: one plain JSON record on the topic of commands.

    python kafka_start.py Measurement kitchen '"kitchen"'     # type, workflow id, arguments as JSON

Whatever partitioner the client has may choose the partition. Where that is not the one of the workflow id, as
mostly with librdkafka's default, a coordinator forwards the command.
"""

import json
import os
import sys
import uuid

from confluent_kafka import Producer

BROKERS = os.environ.get("ORCHESTRATOR_LOG", "kafka://127.0.0.1:9092").removeprefix("kafka://")
NAMESPACE = os.environ.get("ORCHESTRATOR_NAMESPACE", "default")


def main(workflow_type, workflow_id, *arguments):
    command = {
        "command": "StartWorkflow",
        "workflow_id": workflow_id,
        "workflow_type": workflow_type,
        "input": [json.loads(argument) for argument in arguments],
        "request_id": uuid.uuid4().hex,  # sent again with the same one, it starts nothing new
    }
    outcomes = []
    producer = Producer({"bootstrap.servers": BROKERS, "acks": "all"})
    producer.produce(
        f"{NAMESPACE}.commands",
        key=workflow_id,
        value=json.dumps(command),
        on_delivery=lambda error, record: outcomes.append((error, record)),
    )
    producer.flush(30)
    if not outcomes or outcomes[0][0]:
        sys.exit(f"not sent to {BROKERS}: {outcomes[0][0] if outcomes else 'no answer within 30 s'}")
    record = outcomes[0][1]
    print(f"sent to {record.topic()}, partition {record.partition()}, offset {record.offset()}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} TYPE ID [ARGUMENT]...")
    main(*sys.argv[1:])
