"""The lists of commands look as the library's own help does, and cost no library."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from orchestrator.cli import list_of_commands, make_app
from orchestrator.cli.overview import overview

MOST_MODULES = 40
"""So many may be imported to print a list, beside what Python starts with: somebody waits for each."""


@pytest.mark.parametrize("width", ["60", "80", "100", "200"])
@pytest.mark.parametrize("group", [[], ["workflow"], ["topics"], ["queue"]], ids=" ".join)
def test_a_list_looks_as_the_library_would_print_it(
    group: list[str], width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    make_app()([*group, "--help"], exit_on_error=False, result_action="return_value")
    printed = capsys.readouterr().out
    box = printed.index("╭"), printed.index("╯")
    ours = list_of_commands(group)
    assert ours[ours.index("╭") : ours.index("╯")] == printed[slice(*box)]
    if width == "200":  # above and below the box, lines are left to the terminal
        assert ours == printed.rstrip("\n")


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["workflow"], ["workflow", "--help"]])
def test_help_is_printed_from_the_tables_alone(arguments: list[str]) -> None:
    code = (
        "import sys, json; before = set(sys.modules); from orchestrator.cli import run; "
        f"code = run({arguments}); "
        "print(); print(json.dumps([code, sorted(set(sys.modules) - before)]))"
    )
    # Without site, so that no .pth file of the environment has imported half of the library before.
    command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path[:] = {sys.path}; {code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: orchestrator")
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    ours = {name for name in modules if name.startswith("orchestrator")}
    assert ours == {"orchestrator", *(f"orchestrator.{name}" for name in ("cli", "errors"))} | {
        f"orchestrator.cli.{name}" for name in ("exits", "overview")
    }
    foreign = {name.partition(".")[0] for name in set(modules) - ours} - set(sys.stdlib_module_names)
    assert not foreign
    assert len(modules) <= MOST_MODULES, modules


@pytest.mark.parametrize(
    "arguments", [["dev", "--help"], ["workflow", "start", "-h"], ["bogus"], ["--version"]]
)
def test_all_else_is_the_librarys(arguments: list[str]) -> None:
    assert list_of_commands(arguments) == ""


def test_a_terminal_without_unicode_gets_what_it_can_show() -> None:
    code = "from orchestrator.cli import run; run([])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
    )
    assert "+- Commands -" in done.stdout, done.stderr


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    def printed() -> str:
        return overview("x", "About.", {"do": "Does it.\n\nMore."}, "End.")

    assert "\x1b" not in printed()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "│ \x1b[36mdo         \x1b[0m  Does it." in printed()
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in printed()


def test_a_commands_help_flows_and_shows_no_empty_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    make_app()(["dev", "--help"], exit_on_error=False, result_action="return_value")
    shown = capsys.readouterr().out
    assert "Stop it with Ctrl-C; everything goes on where it was at the next start" in shown
    assert "[default: 7350]" in shown
    make_app()(["workflow", "list", "--help"], exit_on_error=False, result_action="return_value")
    shown = capsys.readouterr().out
    assert "[default: table]" in shown
    assert "--address" in shown
    assert "[default: ]" not in shown
    assert '[default: ""]' not in shown
