"""The code blocks of a Markdown file, and what they mean.

    ```python title="orders.py"     a file: written into the folder of the document; the text above
                                    it names it, for no renderer shows a title
    ```python                       a program: run in that folder
    ```bash                         a script: run in that folder, ends at its first failure
    ```console                      commands after "$ "; lines below them are their output, "..." is anything

`<!-- not run: reason -->` in the line above a block leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

RUN = ("bash", "console", "python")
"""Languages whose blocks are run."""

SHOWN = ("avro", "ini", "json", "mermaid", "text", "toml")
"""Languages whose blocks are there to be read."""

_FENCE = re.compile(r"^```(?P<language>\w*)(?: title=\"(?P<title>[\w./-]+)\")?\s*$")
_NOT_RUN = re.compile(r"^<!-- not run: (?P<reason>.+) -->$")


class Block(NamedTuple):
    """One fenced block; ``line`` is where its text begins."""

    language: str
    title: str
    not_run: str
    line: int
    text: str


class Command(NamedTuple):
    """A line of a console, and the output that is shown below it ("" if none is)."""

    line: int
    text: str
    shown: str


def blocks(path: Path) -> Iterator[Block]:
    """The blocks of a file, in order.

    Raises:
        ValueError: a block has no language, or one that is neither run nor shown; or it is a file whose name
            readers do not see.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    number = 0
    while number < len(lines):
        number += 1
        if not lines[number - 1].startswith("```"):
            continue
        fence = _FENCE.match(lines[number - 1])
        if not fence or fence["language"] not in RUN + SHOWN:
            raise ValueError(f"{path.name}:{number}: a block is one of {', '.join(RUN + SHOWN)}")
        if fence["title"] and f"`{fence['title']}`" not in _paragraph(lines[: number - 1]):
            raise ValueError(
                f"{path.name}:{number}: readers do not see a title; name `{fence['title']}` right above it"
            )
        end = lines.index("```", number)
        left_out = _NOT_RUN.match(lines[number - 2])
        text = "\n".join(lines[number:end]) + "\n"
        reason = left_out["reason"] if left_out else ""
        yield Block(fence["language"], fence["title"] or "", reason, number + 1, text)
        number = end + 1


def _paragraph(lines: list[str]) -> str:
    """The last paragraph of some lines."""
    return "\n".join(lines).rstrip().rpartition("\n\n")[2]


def commands(block: Block) -> Iterator[Command]:
    """The commands of a console; a line that ends in a backslash goes on in the next."""
    line, text, shown = block.line, "", ""
    for number, found in enumerate(block.text.splitlines(), block.line):
        if found.startswith("$ "):
            if text:
                yield Command(line, text, shown)
            line, text, shown = number, found[2:], ""
        elif text.endswith("\\"):
            text = text[:-1].rstrip() + " " + found.lstrip()
        else:
            shown += found + "\n"
    yield Command(line, text, shown)
