"""What commands print: tables for people, JSON for programs. Data on stdout, all else on stderr.

Nothing is cut off unless stdout is a terminal. Colours only on a terminal, and not with ``NO_COLOR``.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import msgspec

from orchestrator.codec.people import time_of, visible

Format = Literal["table", "json", "jsonl", "ids"]

_COLORS = {
    "Running": 34,
    "Blocked": 33,
    "Completed": 32,
    "Failed": 31,
    "TimedOut": 31,
    "Terminated": 35,
    "Canceled": 33,
}


def to_json(value: Any) -> str:
    """One value, indented."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def to_jsonl(values: Iterable[Any]) -> str:
    """One value per line."""
    return "\n".join(msgspec.json.encode(value).decode() for value in values)


def write(text: str) -> None:
    """Data, to stdout."""
    if text:
        print(text)


def note(text: str) -> None:
    """Anything that is not data, to stderr."""
    print(visible(text), file=sys.stderr)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns without lines."""
    lines = [tuple(titles), *[tuple(map(_one_line, row)) for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    on_terminal = sys.stdout.isatty()
    room = shutil.get_terminal_size().columns if on_terminal else None
    padded = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    cut = [line if room is None or len(line) <= room else line[: room - 1] + "…" for line in padded]
    return "\n".join(map(_colored, cut) if on_terminal and not os.environ.get("NO_COLOR") else cut)


Column = str | Callable[[Mapping[str, Any]], str]
"""What stands in a column: the value of that name, or what is made of all of them."""


def rows(
    values: Sequence[Mapping[str, Any]], columns: Mapping[str, Column], format: Format, *, key: str
) -> None:
    """Print values, which have a table's ``columns`` (title to name) and more, in a format.

    Args:
        values: what is printed; as JSON, with all that they hold.
        columns: of a table: the title, and what stands under it. Where all is empty, there is no column.
        format: how it is printed.
        key: the name of a text, which ``ids`` prints alone, and once where several have the same.
    """
    printers = {
        "table": lambda: rows_text(values, columns),
        "json": lambda: to_json(values),
        "jsonl": lambda: to_jsonl(values),
        "ids": lambda: "\n".join(dict.fromkeys(value[key] for value in values)),
    }
    write(printers[format]())


def rows_text(values: Sequence[Mapping[str, Any]], columns: Mapping[str, Column]) -> str:
    """A table of values, for people; a column that is empty in all of them is left out."""
    cells = [
        [_cell(what, value[what]) if isinstance(what, str) else what(value) for value in values]
        for what in columns.values()
    ]
    shown = {title: column for title, column in zip(columns, cells, strict=True) if any(column) or not values}
    return table(list(shown), list(zip(*shown.values(), strict=True)))


def _cell(name: str, value: Any) -> str:
    if name.endswith("_time_ms"):
        return time_of(value)
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value in (None, 0) else str(value)


def fields(values: Mapping[str, str]) -> str:
    """Names and values, one per line; values of several lines are indented."""
    width = max(map(len, values), default=0)
    return "\n".join(
        f"{name.ljust(width)}  {visible(value).replace(chr(10), chr(10) + ' ' * (width + 2))}".rstrip()
        for name, value in values.items()
        if value
    )


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()))


def _colored(line: str) -> str:
    status = line.split("  ", 1)[0].strip()
    code = _COLORS.get(status)
    return line if code is None else f"\x1b[{code}m{status}\x1b[0m{line[len(status) :]}"


@contextmanager
def progress(what: str) -> Iterator[Callable[[int], None]]:
    """Counts long work on stderr, if that is a terminal; shown from the second step on."""
    steps, done, bar = 0, 0, None

    def count(more: int) -> None:
        nonlocal steps, done, bar
        steps, done = steps + 1, done + more
        if steps == 2 and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn(f"{what}: {{task.completed:,}}"), BarColumn(), TimeElapsedColumn())
            bar = Progress(*columns, console=Console(stderr=True), transient=True)
            bar.add_task(what, total=None, completed=done)
            bar.start()
        elif bar is not None:
            bar.update(bar.task_ids[0], completed=done)

    try:
        yield count
    finally:
        if bar is not None:
            bar.stop()
