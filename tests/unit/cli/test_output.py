from __future__ import annotations

import io
import sys

import pytest

from orchestrator.cli import output


def test_a_table_cuts_nothing_off_when_it_is_piped() -> None:
    long = "x" * 500
    assert output.table(["A", "B"], [["1", long], ["22", ""]]).splitlines() == ["A   B", f"1   {long}", "22"]


def test_a_cell_is_one_line() -> None:
    assert output.table(["A"], [["one\n two"]]).splitlines() == ["A", "one two"]


RED = "\x1b[2J\x1b[31mred\x9b1m\u202e\ud800"
PLAIN = r"\x1b[2J\x1b[31mred\x9b1m\u202e\ud800"


def test_what_others_wrote_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.table(["A"], [[RED]]).splitlines() == ["A", PLAIN]
    assert output.fields({"A": f"{RED}\n{RED}"}) == f"A  {PLAIN}\n   {PLAIN}"
    output.rows([{"id": "a", "error": RED}], {"ID": "id", "ERROR": "error"}, "table", key="id")
    output.note(RED)
    assert capsys.readouterr() == (f"ID  ERROR\na   {PLAIN}\n", f"{PLAIN}\n")


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be called by the test itself: pytest changes stdout between a fixture and its test."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.delenv("NO_COLOR", raising=False)


def test_a_terminal_gets_colours_and_lines_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    lines = output.table(["STATUS", "ID"], [["Failed", "x" * 50]]).splitlines()
    assert lines[1] == "\x1b[31mFailed\x1b[0m  " + "x" * 11 + "…"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in output.table(["STATUS"], [["Failed"]])


def test_fields_without_a_value_are_left_out() -> None:
    assert output.fields({"A": "1\n2", "Long": "", "Bc": "3"}) == "A     1\n      2\nBc    3"


def test_a_column_without_anything_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    columns: dict[str, output.Column] = {"ID": "id", "TAGS": "tags", "BOTH": lambda row: row["id"] * 2}
    output.rows([{"id": "a", "tags": []}, {"id": "b", "tags": []}], columns, "table", key="id")
    output.rows([{"id": "a", "tags": ["t", "u"]}], columns, "table", key="id")
    output.rows([], columns, "table", key="id")
    assert capsys.readouterr().out.splitlines() == [
        *["ID  BOTH", "a   aa", "b   bb"],
        *["ID  TAGS  BOTH", "a   t, u  aa"],
        "ID  TAGS  BOTH",
    ]


def test_an_id_stands_once_among_the_ids(capsys: pytest.CaptureFixture[str]) -> None:
    """A run with two stuck activities is one run to whoever reads ids."""
    output.rows([{"id": "b"}, {"id": "a"}, {"id": "b"}], {"ID": "id"}, "ids", key="id")
    assert capsys.readouterr().out.splitlines() == ["b", "a"]


class Terminal(io.StringIO):
    """Stderr, as somebody sees it who looks."""

    def isatty(self) -> bool:
        return True


def test_long_work_shows_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with output.progress("runs read") as count:
        count(500)
        assert terminal.getvalue() == "", "what is done at once needs no bar"
        count(500)
        count(234)
    assert "runs read: 1,000" in terminal.getvalue()
    assert "runs read: 1,234" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K"), "nothing is left of it"


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("runs read") as count:
        for _ in range(3):
            count(500)
    assert capsys.readouterr() == ("", "")
