"""Logs as people and as programs read them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from orchestrator.telemetry.logs import Format, log_to_stderr


@pytest.fixture
def restored() -> Iterator[None]:
    """The handlers of others come back."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


def logged(capsys: pytest.CaptureFixture[str], format: Format) -> list[str]:
    log_to_stderr("info", format)
    log = logging.getLogger("shop")
    log.debug("nobody hears this")
    log.warning("order %s is\nlate", 17, extra={"workflow_id": "order-17", "run_id": "r1", "amount": {1}})
    try:
        raise ValueError("no")
    except ValueError:
        log.exception("it failed")
    return capsys.readouterr().err.splitlines()


@pytest.mark.usefixtures("restored")
def test_one_object_per_line_with_all_that_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    late, failed = [json.loads(line) for line in logged(capsys, "json")]
    assert late.pop("time").endswith("Z")
    assert late == {
        "level": "warning",
        "logger": "shop",
        "message": "order 17 is\nlate",
        "workflow_id": "order-17",
        "run_id": "r1",
        "amount": [1],
    }
    assert failed["error"].splitlines()[-1] == "ValueError: no"


@pytest.mark.usefixtures("restored")
def test_text_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = logged(capsys, "text")
    assert first.endswith("WARNING shop: order 17 is")


@pytest.mark.usefixtures("restored")
def test_text_says_whose_a_message_is(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", "text")
    of_run = {"workflow_id": "o-1", "run_id": "r1", "workflow_type": "Order"}
    logging.getLogger("shop").info("50%% of %s", "it", extra=of_run)
    logging.getLogger("shop").info("charging", extra={**of_run, "activity_type": "charge", "attempt": 2})
    logging.getLogger("shop").info("nobody's")
    assert [line.split("shop: ")[1] for line in capsys.readouterr().err.splitlines()] == [
        "50% of it (workflow_id=o-1 run_id=r1)",
        "charging (workflow_id=o-1 run_id=r1 activity_type=charge attempt=2)",
        "nobody's",
    ]


@pytest.mark.usefixtures("restored")
def test_what_json_cannot_say_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", "json")
    logging.getLogger("shop").info("x", extra={"where": sys.stdout.__class__})
    assert "class" in json.loads(capsys.readouterr().err)["where"]


@pytest.mark.usefixtures("restored")
def test_what_user_code_raises_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("info", "text")
    try:
        raise ValueError(chr(27) + "[2Jred")
    except ValueError as error:
        logging.getLogger("shop").exception("it is blocked: %s", error)
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.count(r"\x1b[2Jred") == 2
