"""What is wrong with the cluster, for people: said once, and visible for as long as it lasts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import inf
from time import monotonic

from confluent_kafka import KafkaError

_logger = logging.getLogger(__name__)

SILENCE_S = 2.0
"""A broker that owes an answer for so long is in trouble; one that is busy answers before."""

COMPLAINT_S = 30.0
"""A complaint is shown for so long after it was last heard: clients repeat theirs more often."""

_AWAY = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
    }
)
"""Errors that end by themselves when the broker is back."""

_REMEDIES = {
    KafkaError._AUTHENTICATION: "check sasl.username, sasl.password and sasl.mechanism",
    KafkaError.SASL_AUTHENTICATION_FAILED: "check sasl.username, sasl.password and sasl.mechanism",
    KafkaError._SSL: "check security.protocol and the ssl settings",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "give this user READ, WRITE and DESCRIBE on the topics",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "give this user READ on the group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "give this user IDEMPOTENT_WRITE on the cluster",
    KafkaError.UNKNOWN_TOPIC_OR_PART: "create the topics with `orchestrator topic create`",
    KafkaError._UNKNOWN_TOPIC: "create the topics with `orchestrator topic create`",
}
"""What the operator has to do; other errors speak for themselves."""


class Health:
    """Collects what the clients complain of. Its methods are called while some client is polled."""

    def __init__(self, bootstrap: str, clock_s: Callable[[], float] = monotonic) -> None:
        self._bootstrap = bootstrap
        self._clock_s = clock_s
        self._answered_s = clock_s()
        self._away = ""
        self._wrong = ""
        self._wrong_s = 0.0
        self._said: set[tuple[int, str]] = set()

    def on_error(self, error: KafkaError) -> None:
        """A client's complaint about the cluster as a whole."""
        if error.code() in _AWAY:
            known, self._away = self._away, error.str()
            if not known:
                _logger.warning("Kafka at %s is waited for: %s", self._bootstrap, error.str())
        elif error.code() != KafkaError._FENCED:  # a partition's publisher has a successor, as it should
            self.complain(error)

    def complain(self, error: KafkaError, about: str = "") -> None:
        """Something that does not end by itself. Each is logged once."""
        place = f"{about}: " if about else ""
        self._wrong = f"Kafka at {self._bootstrap}: {place}{explain(error)}"
        self._wrong_s = self._clock_s()
        kind = (error.code(), about)  # the words differ from time to time
        if kind not in self._said:
            self._said.add(kind)
            _logger.error("%s", self._wrong)

    def answered(self) -> None:
        """The broker has taken or brought a record."""
        self._answered_s = self._clock_s()
        if self._away:
            _logger.warning("Kafka at %s answers again", self._bootstrap)
            self._away = ""

    def trouble(self, owed_since_s: float = inf) -> str:
        """What is wrong now, in one sentence; "" if nothing is.

        ``owed_since_s``: since when, by the same clock, an answer is awaited.
        """
        now_s = self._clock_s()
        if self._wrong and now_s - self._wrong_s < COMPLAINT_S:
            return self._wrong
        # Who asked nothing does not wait for an answer, unless the client says that nobody is there.
        silent_s = now_s - (self._answered_s if self._away else max(self._answered_s, owed_since_s))
        if silent_s > SILENCE_S:
            why = f": {self._away}" if self._away else ""
            return f"Kafka at {self._bootstrap} does not answer for {silent_s:.0f} s{why}"
        return ""

    def unanswered(self, why: str) -> str:
        """What to tell who asked for something, and why it is given up; with what the client said last."""
        return f"no answer from Kafka at {self._bootstrap}: {why}{f' ({self._away})' if self._away else ''}"


def explain(error: KafkaError) -> str:
    """An error in the client's words, and what the operator has to do, if it is one of those."""
    remedy = _REMEDIES.get(error.code(), "")
    return f"{error.str()}; {remedy}" if remedy else str(error.str())
