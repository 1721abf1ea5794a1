"""Stops a coordinator at a point of its step, as somebody would who pauses it from outside at that moment.

Given to a coordinator as one more of its modules. Whoever writes a point's name into the file that
``STOP_AT`` names stops the process when it next comes there; the file is gone then. ``GROUP`` lets the
process join a group of its own, so that nothing but the log tells it of the others.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from orchestrator.cli.process import HangWatch
from orchestrator.log.kafka import clients
from orchestrator.log.kafka.appender import KafkaAppender

STOP_AT = "TEST_STOP_AT"
GROUP = "TEST_GROUP"

UNSENT = "unsent"
"""A batch of turns is appended, and not with the Kafka client yet. When the process goes on, it lands."""

SENT = "sent"
"""The Kafka client has it, and nobody knows what of it lands before the process goes on, what after."""

HALF_LANDED = "half-landed"
"""Its first half stands in history, the other half is not sent. When the process goes on, that lands, too."""

LANDED = "landed"
"""All of it stands in history, and the owner has read nothing of it back."""


def _stop_where_told(order: Path) -> None:
    watched = HangWatch.at

    def at(watch: HangWatch, point: str) -> None:
        watched(watch, point)
        if _told(order, point):
            _stop(order)

    HangWatch.at = at  # type: ignore[method-assign]


def _stop_while_sending(order: Path) -> None:
    send = KafkaAppender.send

    def send_and_wait(appender: KafkaAppender) -> None:
        send(appender)
        appender.lines[0].producer.flush()

    def sending(appender: KafkaAppender) -> None:
        if not _has_turns(appender):
            send(appender)
        elif _told(order, UNSENT):
            _stop(order)
            send_and_wait(appender)
        elif _told(order, SENT):
            send(appender)
            _stop(order)
        elif _told(order, LANDED):
            send_and_wait(appender)
            _stop(order)
        elif len(appender.pending) > 1 and _told(order, HALF_LANDED):
            half = len(appender.pending) // 2
            rest = [appender.pending.pop() for _ in range(half)]
            send_and_wait(appender)
            _stop(order)
            appender.pending.extend(reversed(rest))
            send_and_wait(appender)
        else:
            send(appender)

    KafkaAppender.send = sending  # type: ignore[method-assign]


def _has_turns(appender: KafkaAppender) -> bool:
    """Whether it is one of history, which has more to send than its claim."""
    claims = (draft.record.key.startswith(b"claim/") for draft in appender.pending)
    return appender._ordered and not any(claims)


def _told(order: Path, point: str) -> bool:
    return order.exists() and order.read_text() == point


def _stop(order: Path) -> None:
    order.unlink()
    os.kill(os.getpid(), signal.SIGSTOP)


def _join(group: str) -> None:
    in_group = clients.Clients._in_group

    def elsewhere(made: clients.Clients, required: dict[str, object]) -> dict[str, object]:
        return {**in_group(made, required), "group.id": group}

    clients.Clients._in_group = elsewhere  # type: ignore[method-assign, assignment]


if STOP_AT in os.environ:
    _stop_where_told(Path(os.environ[STOP_AT]))
    _stop_while_sending(Path(os.environ[STOP_AT]))
if GROUP in os.environ:
    _join(os.environ[GROUP])
