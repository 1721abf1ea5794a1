"""The help of each command: as the library prints it, with an example, and nothing imported for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator import cli
from orchestrator.cli import help

MOST_MODULES = 40
"""So many may be imported to print a help, beside what Python starts with: somebody waits for each."""

ALL = [(), *cli.commands()]


def test_what_is_ready_is_what_the_library_prints() -> None:
    written = Path(help.FILE).read_text(encoding="utf-8")
    assert written == help.transcript(), "a command or its help has changed: run `make usage`"


@pytest.mark.parametrize("words", ALL, ids=lambda words: " ".join(words) or "all")
def test_every_command_has_its_help_with_an_example(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = " ".join(cli.help_asked([*words, "--help"]).split())
    assert text.startswith(f"Usage: {' '.join(('orchestrator', *words))} ")
    assert text.count("Usage: ") == 1
    assert text.endswith("124 the wait timed out, 130 interrupted.")
    is_command = words in {(name,) for name in cli._COMMANDS} or len(words) == 2
    assert (f"Example: orchestrator {' '.join(words)}" in text) is is_command


@pytest.mark.parametrize(
    "arguments",
    [[], ["-h"], ["workflow"], ["workflow", "--help"], ["workflow", "list", "-h"], ["dev", "--help"]],
)
def test_help_is_printed_from_the_file_alone(arguments: list[str]) -> None:
    code = (
        "import sys, json; before = set(sys.modules); from orchestrator.cli import run; "
        f"code = run({arguments}); "
        "print(); print(json.dumps([code, sorted(set(sys.modules) - before)]))"
    )
    # Without site, so that no .pth file of the environment has imported half of the library before.
    command = [
        sys.executable,
        "-I",
        "-S",
        "-X",
        "utf8",
        "-c",
        f"import sys; sys.path[:] = {sys.path}; {code}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"COLUMNS": "80"})
    assert done.stdout.startswith("Usage: orchestrator")
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    ours = {name for name in modules if name.startswith("orchestrator")}
    assert ours == {"orchestrator", "orchestrator.errors"} | {
        f"orchestrator.{name}" for name in ("cli", "cli.exits", "cli.help")
    }
    foreign = {name.partition(".")[0] for name in set(modules) - ours} - set(sys.stdlib_module_names)
    assert not foreign
    assert len(modules) <= MOST_MODULES, modules


@pytest.mark.parametrize(
    "arguments",
    [["bogus"], ["bogus", "--help"], ["--version"], ["dev"], ["workflow", "list"], ["workflow", "lis", "-h"]],
)
def test_all_else_is_the_librarys(arguments: list[str]) -> None:
    assert cli.help_asked(arguments) == ""


def test_a_group_goes_on_under_the_name_that_it_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["topic", "--help"]) == 0
    now = capsys.readouterr().out
    assert cli.run(["topics", "--help"]) == 0
    assert capsys.readouterr().out == now
    assert "Usage: orchestrator topic COMMAND" in now
    assert "topics " not in cli.help_asked([]).split("Commands")[1].split("Make and look at")[0]


@pytest.mark.parametrize(
    ("surroundings", "shown"),
    [({"PYTHONIOENCODING": "ascii", "COLUMNS": "80"}, "+- "), ({"PYTHONUTF8": "1", "COLUMNS": "60"}, "╮\n")],
)
def test_a_terminal_without_unicode_or_room_gets_what_it_can_show(
    surroundings: dict[str, str], shown: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "queue", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=surroundings,
    )
    assert shown in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= int(surroundings["COLUMNS"])


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: os.terminal_size((100, 40)))
    plain = help.ready(["workflow"])
    assert "\x1b" not in plain
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    colored = help.ready(["workflow"])
    assert colored.startswith("\x1b[1mUsage: orchestrator workflow COMMAND\x1b[0m\n")
    assert "│ \x1b[36mcount\x1b[0m      Count the runs" in colored
    for code in ("\x1b[1m", "\x1b[36m", "\x1b[0m"):
        colored = colored.replace(code, "")
    assert colored == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert help.ready(["workflow"]) == plain


def test_a_commands_help_shows_no_empty_defaults() -> None:
    text = Path(help.FILE).read_text(encoding="utf-8")
    assert "[default: 7350]" in text
    assert "[default: ]" not in text
    assert '[default: ""]' not in text
