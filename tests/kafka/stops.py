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

STOP_AT = "TEST_STOP_AT"
GROUP = "TEST_GROUP"


def _stop_where_told(order: Path) -> None:
    watched = HangWatch.at

    def at(watch: HangWatch, point: str) -> None:
        watched(watch, point)
        if order.exists() and order.read_text() == point:
            order.unlink()
            os.kill(os.getpid(), signal.SIGSTOP)

    HangWatch.at = at  # type: ignore[method-assign]


def _join(group: str) -> None:
    in_group = clients.Clients._in_group

    def elsewhere(made: clients.Clients, required: dict[str, object]) -> dict[str, object]:
        return {**in_group(made, required), "group.id": group}

    clients.Clients._in_group = elsewhere  # type: ignore[method-assign, assignment]


if STOP_AT in os.environ:
    _stop_where_told(Path(os.environ[STOP_AT]))
if GROUP in os.environ:
    _join(os.environ[GROUP])
