"""Names and sizes of topics, as the cluster has them."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, sleep
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from orchestrator.codec.avro import MAX_RECORD_BYTES
from orchestrator.errors import LogError, Unavailable
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.port import Record
from orchestrator.log.topics import COMMANDS, TOPICS, refusal

ANSWER_S = 2.5
"""A question to the broker waits so long. Two of them are a read, and a pause of more than 5 s costs a
coordinator its claims."""

MOVING_S = 0.02
"""A partition whose leader changes is asked again after so long."""

_MOVING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
    }
)

AGAIN_S = 1.0
"""Topics that were not there, or not known, are asked for again after so long, if somebody needs one."""

T = TypeVar("T")


class Places:
    """Translates names, and knows how many partitions there are. ``client`` fetches nothing.

    All topics are looked up when the first one is needed, so that nothing has to be asked when a broker that
    went away is waited for.
    """

    def __init__(self, settings: KafkaSettings, client: Consumer) -> None:
        self._settings = settings
        self._client = client
        self._full = {name: settings.topic(name) for name in TOPICS}
        self._counts: dict[str, int] = {}
        self._ask_s = 0.0
        self._known = False
        """Whether the last look-up was answered: then a topic without a count is not there."""

    def full(self, topic: str) -> str:
        """The name of a topic in the cluster."""
        return self._full[topic]

    def count(self, topic: str) -> int:
        """Number of partitions of a topic.

        Raises:
            LogError: there is no such topic.
            Unavailable: the broker does not answer.
        """
        if topic in self._counts:
            return self._counts[topic]
        if topic not in TOPICS:
            raise LogError(f"there is no topic {topic!r}; the topics are {', '.join(TOPICS)}")
        if monotonic() >= self._ask_s:
            self._known = False
            try:
                self._look_up()
                self._known = True
            finally:
                self._ask_s = monotonic() + AGAIN_S
        if topic in self._counts:
            return self._counts[topic]
        if not self._known:
            raise Unavailable(f"the partitions of {self._full[topic]} are not known yet")
        raise LogError(
            f"there is no topic {self._full[topic]!r} at {self._settings.bootstrap}; create it with "
            "`orchestrator topic create`, and allow this user to DESCRIBE it"
        )

    def at(self, topic: str, partition: int, offset: int = 0) -> TopicPartition:
        """The client's name of a place in the log.

        Raises:
            LogError: there is no such topic or partition.
            Unavailable: the broker does not answer.
        """
        count = self.count(topic)
        if not 0 <= partition < count:
            raise LogError(f"there is no partition {partition} of {topic!r}; it has {count}, from 0")
        return TopicPartition(self._full[topic], partition, offset)

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset that is there, and the one after the last durable record.

        Raises:
            LogError: there is no such topic or partition.
            Unavailable: the broker does not answer.
        """
        place = self.at(topic, partition)
        return _answer(
            lambda timeout_s: self._client.get_watermark_offsets(place, timeout=timeout_s),
            f"the end of {place.topic}-{partition} is not known",
        )

    def introduce(self, client: Consumer, topic: str) -> None:
        """Tell another client where a topic is. By itself it looks for those that are new once per second.

        Raises:
            Unavailable: the broker does not answer.
        """
        full = self._full[topic]
        _answer(
            lambda timeout_s: client.list_topics(full, timeout=timeout_s), f"where {full} is, is not known"
        )

    def refusal(self, record: Record) -> str:
        """Why the log will never take a record; "" if it may. What cannot be known now is tried."""
        commands = self._counts.get(COMMANDS)
        if commands is not None and record.topic in self._counts:
            return refusal(record, commands, MAX_RECORD_BYTES)
        try:
            self.count(record.topic)
            commands = self.count(COMMANDS)
        except Unavailable:
            return ""
        except LogError as error:
            return str(error)
        return refusal(record, commands, MAX_RECORD_BYTES)

    def _look_up(self) -> None:
        for topic, full in self._full.items():
            if topic in self._counts:
                continue
            cluster = _answer(
                lambda timeout_s, full=full: self._client.list_topics(full, timeout=timeout_s),  # type: ignore[misc]
                f"the partitions of {full} are not known",
            )
            found = cluster.topics.get(full)
            if found is not None and found.error is None and found.partitions:
                self._counts[topic] = len(found.partitions)


def _answer(ask: Callable[[float], T], unknown: str) -> T:
    """The broker's answer, asked for again while partitions move between brokers.

    Raises:
        Unavailable: there is none in time; ``unknown`` says what is not known.
    """
    deadline_s = monotonic() + ANSWER_S
    while True:
        left_s = deadline_s - monotonic()
        try:
            return ask(max(0.1, left_s))
        except KafkaException as error:
            if left_s <= 0 or error.args[0].code() not in _MOVING:
                raise Unavailable(f"{unknown}: {error.args[0].str()}") from error
        sleep(MOVING_S)
