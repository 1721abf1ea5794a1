"""The help of every command, ready to be printed.

The library that parses commands takes five times as long to import as Python does to start, and who asks for
help waits for it. So what it prints stands in a file beside this one; ``make usage`` writes that anew, and a
test holds the two together.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

WIDTH = 80
"""Of a line; the library helps in a terminal that is narrower."""

FILE = os.path.join(os.path.dirname(__file__), "help.txt")

_PROMPT = "$ orchestrator "

_CYAN, _BOLD, _PLAIN = "\x1b[36m", "\x1b[1m", "\x1b[0m"


def flowing(text: str) -> str:
    """A help text with each paragraph on one line: the terminal breaks it."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


def ready(words: Sequence[str]) -> str:
    """The help of a command, of a group of commands, or (no words) of all; "" if there is none for here."""
    poor_terminal = not sys.stdout.encoding.lower().startswith("utf")
    if poor_terminal or shutil.get_terminal_size().columns < WIDTH:
        return ""  # the library knows what to do
    with open(FILE, encoding="utf-8") as file:
        text = file.read()
    prompt = f"\n{_PROMPT}{' '.join([*words, '--help'])}\n"
    _, _, found = f"\n{text}".partition(prompt)
    shown = found.partition(f"\n\n{_PROMPT}")[0].rstrip("\n")
    return _colored(shown) if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else shown


def _colored(text: str) -> str:
    first, *lines = text.split("\n")
    return "\n".join([f"{_BOLD}{first}{_PLAIN}", *map(_line, lines)])


def _line(line: str) -> str:
    """What stands in the left column of a box is cyan."""
    label, gap, rest = line.removeprefix("│ ").partition("  ")
    if not line.startswith("│ ") or not label:
        return line
    return f"│ {_CYAN}{label}{_PLAIN}{gap}{rest}"


def transcript() -> str:
    """What the library says of every command: the text of the file."""
    from orchestrator.cli import commands

    every: list[tuple[str, ...]] = [(), *commands()]
    shown = (f"{_PROMPT}{' '.join([*words, '--help'])}\n{_printed(words)}" for words in every)
    return "\n\n".join(shown) + "\n"


def _printed(words: Sequence[str]) -> str:
    from io import StringIO

    from rich.console import Console

    from orchestrator.cli import make_app

    console = Console(file=StringIO(), width=WIDTH, color_system=None)
    make_app()([*words, "--help"], exit_on_error=False, result_action="return_value", console=console)
    assert isinstance(console.file, StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().split("\n"))


if __name__ == "__main__":
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(transcript())
