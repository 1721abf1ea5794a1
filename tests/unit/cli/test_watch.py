from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from typing import Any

import pytest

from orchestrator import cli
from orchestrator.cli import output, watch
from orchestrator.cli.watch import Watch
from orchestrator.errors import Unavailable

EVER = Watch(watch=True)


class Looks:
    """What is there to see, look after look; an error is raised."""

    def __init__(self, *found: str | Exception) -> None:
        self.found: Iterator[str | Exception] = iter(found)

    def __call__(self) -> None:
        found = next(self.found)
        if isinstance(found, Exception):
            raise found
        output.write(found)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Those that were made; nobody waits. The third is interrupted."""
    made: list[float] = []

    def pause(seconds: float) -> None:
        made.append(seconds)
        if len(made) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", pause)
    return made


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(watch.shutil, "get_terminal_size", lambda *_: os.terminal_size((80, 6)))
    return Terminal()


def until_interrupted(look: Any, format: output.Format = "table", every: Watch = EVER) -> None:
    with pytest.raises(KeyboardInterrupt):
        every.show(look, format)


def test_without_being_asked_it_looks_once(capsys: pytest.CaptureFixture[str], pauses: list[float]) -> None:
    Watch().show(Looks("one"), "table")
    assert (capsys.readouterr().out, pauses) == ("one\n", [])


def test_elsewhere_than_on_a_terminal_looks_follow_one_another(
    capsys: pytest.CaptureFixture[str], pauses: list[float]
) -> None:
    until_interrupted(Looks("one", "two", "three"), every=Watch(watch=True, interval=7))
    assert (capsys.readouterr().out, pauses) == ("one\n\ntwo\n\nthree\n", [7, 7, 7])


def test_every_line_is_json_where_that_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    until_interrupted(Looks("1", "2", "3"), "jsonl")
    assert capsys.readouterr().out == "1\n2\n3\n"


def test_an_engine_that_goes_away_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    until_interrupted(Looks("one", Unavailable("no engine"), "three"), "jsonl")
    assert capsys.readouterr() == ("one\nthree\n", "waiting: no engine\n")


def test_an_engine_that_is_not_there_at_first_is_an_error() -> None:
    with pytest.raises(Unavailable):
        EVER.show(Looks(Unavailable("no engine")), "table")


def test_an_interval_has_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(("stuck", "--watch", "--interval", "0")) == 2
    assert capsys.readouterr().err == "error: --interval is 0; it is at least 0.1\n"


def test_on_a_terminal_it_is_drawn_in_place(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        until_interrupted(Looks("one", "two", Unavailable("no engine")))
    first, second, third = terminal.getvalue().split("\x1b[H")[1:]
    assert terminal.getvalue().startswith("\x1b[2J\x1b[H")
    assert first.startswith("every 2 s: ")
    assert first.endswith("\x1b[K\n\x1b[K\none\x1b[K\n\x1b[J")
    assert second.endswith("two\x1b[K\n\x1b[J")
    assert third.endswith("waiting: no engine\x1b[K\n\x1b[J")


def test_no_more_is_drawn_than_there_is_room_for(terminal: Terminal) -> None:
    with redirect_stdout(terminal):
        until_interrupted(Looks(*["\n".join("abcdef")] * 3))
    drawn = terminal.getvalue().split("\x1b[H")[1].replace("\x1b[K", "").splitlines()
    assert drawn[1:] == ["", "a", "b", "… 4 more lines", "\x1b[J"]


def test_what_is_drawn_is_made_for_a_terminal(terminal: Terminal) -> None:
    seen: list[bool] = []
    with redirect_stdout(terminal):
        until_interrupted(lambda: seen.append(sys.stdout.isatty()))
    assert seen == [True] * 3
