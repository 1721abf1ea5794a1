from __future__ import annotations

import logging

import pytest

from orchestrator.log.kafka.outage import Outage


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("orchestrator")]


def test_an_outage_is_said_once_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("a:1")
    outage.over()
    assert said(caplog) == []
    for _ in range(3):
        outage.begin("no answer")
    assert said(caplog) == ["no answer; what waits for it goes on by itself"]
    outage.over()
    outage.over()
    assert said(caplog)[1:] == ["Kafka at a:1 answers again"]
    outage.begin("no answer")
    assert len(said(caplog)) == 3


def test_what_the_library_complained_of_last_explains_it() -> None:
    outage = Outage("a:1")
    logging.getLogger("aiokafka.conn").error("connection to %s refused", "a:1")
    why = "no answer from Kafka at a:1: it cannot be reached (connection to a:1 refused)"
    assert outage.describe("it cannot be reached") == why
    outage.begin(why)
    outage.over()
    assert outage.describe("anew") == "no answer from Kafka at a:1: anew"
