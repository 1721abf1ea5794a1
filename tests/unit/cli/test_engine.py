"""What is asked of an engine, and what becomes of that when the engine goes away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import pytest

from orchestrator import cli
from orchestrator.cli import engine as engine_module
from orchestrator.cli import histories
from orchestrator.protocol.events import WorkflowCompleted, WorkflowStarted
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.views import History

CLIENT = httpx.Client

ROWS = {"rows": [], "next_page": ""}


class Answers:
    """An engine, by the transport of the HTTP client: one answer after another, None is silence."""

    def __init__(self, *found: Any) -> None:
        self._found: Iterator[Any] = iter(found)
        self.asked: list[httpx.URL] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url)
        found = next(self._found)
        if found is None:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, content=msgspec.json.encode(found))


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those that were made; nobody waits."""
    made: list[float] = []
    monkeypatch.setattr(engine_module.time, "sleep", made.append)
    return made


def serve(monkeypatch: pytest.MonkeyPatch, *found: Any) -> Answers:
    answers = Answers(*found)

    def connected(**options: Any) -> httpx.Client:
        return CLIENT(**options, transport=httpx.MockTransport(answers))

    monkeypatch.setattr(httpx, "Client", connected)
    return answers


@pytest.mark.parametrize(
    ("command", "answer", "asked"),
    [
        (
            ("stuck", "--waiting", "0", "--attempts", "100", "--limit", "0"),
            ROWS,
            {"attempts": "100", "waiting_s": "0.0", "limit": "500"},
        ),
        (("failures", "--limit", "0"), {"groups": [], "more": 0}, {"limit": "1000"}),
        (
            ("workflow", "list", "--type", "", "--limit", "7"),
            ROWS,
            {"limit": "7"},
        ),
    ],
)
def test_zero_is_said_and_what_was_not_given_is_not(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...],
    answer: Any,
    asked: dict[str, str],
) -> None:
    engine = serve(monkeypatch, answer)
    assert cli.run(command) == 0
    assert dict(engine.asked[0].params) == asked
    assert capsys.readouterr().err == "", "nothing is left out, so nothing is to be said of it"


def result(status: str) -> dict[str, Any]:
    return {"workflow_id": "w", "run_id": "r1", "status": status, "result": 5, "failure": None}


def test_a_result_is_waited_for_while_the_engine_is_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = serve(monkeypatch, result("Running"), None, None, result("Running"), result("Completed"))
    assert cli.run(("workflow", "result", "w")) == 0
    out, said = capsys.readouterr()
    assert out == "5\n"
    assert said.startswith("waiting: no engine answers at ")
    assert said.count("\n") == 1
    assert [url.params.get("run_id") for url in engine.asked] == [None, "r1", "r1", "r1", "r1"]


def test_an_engine_that_never_answered_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    serve(monkeypatch, None)
    assert cli.run(("workflow", "result", "w")) == 1
    serve(monkeypatch, None)
    assert cli.run(("workflow", "show", "w", "--follow")) == 1
    assert capsys.readouterr().err.count("error: no engine answers") == 2


def test_the_time_to_wait_for_a_result_goes_on_while_the_engine_is_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pauses: list[float]
) -> None:
    now_s = iter([0.0, 0.0, 1.0, 1.0, 9.5, 9.5, 10.0])
    monkeypatch.setattr(engine_module.time, "monotonic", lambda: next(now_s))
    serve(monkeypatch, result("Running"), None, None)
    assert cli.run(("workflow", "result", "w", "--timeout", "10")) == 124
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: after 10 s, no engine answers at ")
    assert pauses == [0.5]


def turn(number: int, *events: Any) -> Turn:
    return Turn(
        epoch=1,
        seq=number,
        marks=Marks(),
        sent_through=0,
        time_ms=1_700_000_000_000,
        workflow_id="w",
        run_id="r1",
        turn=number,
        first_event_id=number,
        activation=Activation.DONE,
        events=events,
    )


def test_who_follows_a_run_goes_on_when_the_engine_is_there_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def page(*turns: Turn) -> History:
        return History(workflow_id="w", run_id="r1", workflow_type="Order", turns=turns)

    monkeypatch.setattr(histories, "LOOK_S", 0.0)
    started, closed = turn(1, WorkflowStarted(workflow_type="Order")), turn(2, WorkflowCompleted())
    engine = serve(monkeypatch, page(started), None, page(), None, page(closed))
    assert cli.run(("workflow", "show", "w", "--follow", "-o", "jsonl")) == 0
    out, said = capsys.readouterr()
    assert [json.loads(line)["turn"] for line in out.splitlines()] == [1, 2]
    assert said.count("waiting: no engine answers") == 2, "once each time"
    assert [url.params["after_turn"] for url in engine.asked] == ["0", "1", "1", "1", "1"]
