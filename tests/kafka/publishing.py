"""A process that publishes numbers from the mark on: BROKER NAMESPACE TOPIC UNTIL are its arguments.

It says what becomes of each transaction: tests kill and pause it in the middle.
"""

from __future__ import annotations

import sys

from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.publisher import KafkaPublisher
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.port import Outcome
from orchestrator.protocol.publications import Publication

BATCH = 5


def main(bootstrap: str, namespace: str, topic: str, until: int) -> None:
    """Publish until the number ``until``."""
    while True:
        publisher = KafkaPublisher(Clients(KafkaSettings(bootstrap, namespace), "test"), 0)
        number = int(publisher.open() or 0)
        print("open", number, flush=True)
        while True:
            if number >= until:
                publisher.close()
                return
            records = [
                Publication(topic=topic, key=b"k", value=b"%d" % n) for n in range(number, number + BATCH)
            ]
            published = publisher.publish(records, b"%d" % (number + BATCH))
            if published.outcome is not Outcome.DELIVERED:
                print("unknown", published.error, flush=True)
                publisher.close()
                break
            number += BATCH
            print("published", number, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
