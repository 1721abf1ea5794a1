"""The public API as type checkers see it: arguments are checked, results are known."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CALLS = Path(__file__).with_name("calls.py")

NOTE = re.compile(r":(\d+): note: Revealed type is \"(.*)\"$")
ERROR = re.compile(r":(\d+): error: .*\[([a-z-]+)\]$")
COMMENT = re.compile(r"  # (is|no): (.+)$")


def expected() -> tuple[dict[int, str], dict[int, str]]:
    """By line: the types and the errors that the comments ask for."""
    asked: dict[str, dict[int, str]] = {"is": {}, "no": {}}
    for number, line in enumerate(CALLS.read_text().splitlines(), 1):
        if found := COMMENT.search(line):
            asked[found[1]][number] = found[2]
    return asked["is"], asked["no"]


def found() -> tuple[dict[int, str], dict[int, set[str]]]:
    """By line: the types that mypy reveals, and the codes of the errors that it finds."""
    # The cache is that of `make check`: without one, mypy first reads the whole package.
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--show-error-codes"]
    done = subprocess.run([*command, str(CALLS)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    revealed: dict[int, str] = {}
    errors: dict[int, set[str]] = {}
    for line in done.stdout.splitlines():
        if note := NOTE.search(line):
            revealed[int(note[1])] = re.sub(r"\b[a-z_]+\.(?=\w)", "", note[2])
        elif error := ERROR.search(line):
            errors.setdefault(int(error[1]), set()).add(error[2])
    return revealed, errors


def test_right_calls_have_their_types_and_wrong_ones_their_errors() -> None:
    types, wrong = expected()
    revealed, errors = found()
    assert len(types) > 15
    assert revealed == types
    assert errors.keys() == wrong.keys()
    assert {line: code for line, code in wrong.items() if code not in errors[line]} == {}
