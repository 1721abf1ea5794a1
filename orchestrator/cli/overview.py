"""The lists of commands: what ``orchestrator --help`` prints, without the library that parses commands.

That library takes three times as long to import as Python does to start, and who asks for help waits for
it. A command's own help needs its parameters, so there the library prints; a test holds the two to look
the same.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from textwrap import wrap

_OPTIONS = {"--help (-h)": "Display this message and exit.", "--version": "Display application version."}
"""What every command line program has; shown for the program, not for its groups of commands."""

_MIN_WIDTH = 40
"""In a terminal that is narrower, lines are broken by the terminal."""

_CYAN, _BOLD, _PLAIN = "\x1b[36m", "\x1b[1m", "\x1b[0m"


def flowing(text: str) -> str:
    """A help text with each paragraph on one line: the terminal breaks it."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


def overview(name: str, about: str, commands: Mapping[str, str], epilogue: str) -> str:
    """The help of a program, or of a group of its commands, as wide as the terminal.

    Args:
        name: how it is called.
        about: what it is, in a sentence.
        commands: what it offers, by name, with the help of each.
        epilogue: what stands below.
    """
    width = max(shutil.get_terminal_size().columns, _MIN_WIDTH)
    rows = {command: flowing(commands[command]).split("\n")[0] for command in sorted(commands)}
    if " " not in name:
        rows |= _OPTIONS
    colored = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    bold, plain = (_BOLD, _PLAIN) if colored else ("", "")
    parts = [f"{bold}Usage: {name} COMMAND{plain}", about, "\n".join(_box(rows, width, colored)), epilogue]
    return "\n\n".join(parts)


def _box(rows: Mapping[str, str], width: int, colored: bool) -> Iterable[str]:
    cyan, plain = (_CYAN, _PLAIN) if colored else ("", "")
    label = max(map(len, rows))
    room = width - label - 6  # two borders with a space each, and two spaces between the columns
    yield f"╭─ Commands {'─' * (width - 13)}╮"
    for name, about in rows.items():
        for place, line in enumerate(wrap(about, room)):
            title = "" if place else name
            yield f"│ {cyan}{title.ljust(label)}{plain}  {line.ljust(room)} │"
    yield f"╰{'─' * (width - 2)}╯"
