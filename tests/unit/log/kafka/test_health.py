"""What is said of a cluster's troubles, and for how long."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import KafkaError

from orchestrator.log.kafka.health import COMPLAINT_S, SILENCE_S, Health, explain

DOWN = KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down")
DENIED = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health("b:9092", clock)


def test_silence_is_trouble_only_if_an_answer_is_owed(health: Health, clock: Clock) -> None:
    clock.now_s += 60
    assert health.trouble() == ""
    assert health.trouble(clock.now_s - SILENCE_S / 2) == ""
    assert health.trouble(clock.now_s - 12) == "Kafka at b:9092 does not answer for 12 s"
    health.answered()
    assert health.trouble(clock.now_s - 12) == ""


def test_a_broker_that_is_away_is_shown_until_it_answers(
    health: Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    clock.now_s += 1
    for _ in range(3):
        health.on_error(DOWN)
    assert health.trouble() == "", "it may be back before anybody notices"
    clock.now_s += 9
    assert health.trouble() == "Kafka at b:9092 does not answer for 10 s: 1/1 brokers are down"
    health.answered()
    assert health.trouble() == ""
    assert [record.message for record in caplog.records] == [
        "Kafka at b:9092 is waited for: 1/1 brokers are down",
        "Kafka at b:9092 answers again",
    ]


def test_a_complaint_is_logged_once_and_shown_while_it_is_repeated(
    health: Health, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        health.complain(DENIED, "tasks")
        clock.now_s += COMPLAINT_S / 2
        health.answered()
        assert health.trouble() == (
            "Kafka at b:9092: tasks: Broker: Topic authorization failed; give this user READ, WRITE and "
            "DESCRIBE on the topics"
        )
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    clock.now_s += COMPLAINT_S
    assert health.trouble() == ""
    health.on_error(DENIED)
    assert "Topic authorization failed" in health.trouble()


def test_who_asked_for_something_is_told_why_there_is_no_answer(health: Health) -> None:
    assert health.unanswered("nothing for 30 s") == "no answer from Kafka at b:9092: nothing for 30 s"
    health.on_error(DOWN)
    assert health.unanswered("nothing") == "no answer from Kafka at b:9092: nothing (1/1 brokers are down)"
    health.answered()
    assert health.unanswered("nothing") == "no answer from Kafka at b:9092: nothing"


def test_an_error_is_explained_by_what_has_to_be_done() -> None:
    assert explain(DOWN) == "1/1 brokers are down"
    assert explain(DENIED).endswith("; give this user READ, WRITE and DESCRIBE on the topics")
