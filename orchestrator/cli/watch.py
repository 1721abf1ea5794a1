"""``--watch``: what a command shows, shown again and again until Ctrl-C.

On a terminal it is drawn in place. Elsewhere each look is printed below the one before, after an empty line;
as ``jsonl`` without one, so that every line is JSON.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter

from orchestrator.cli import output
from orchestrator.cli.options import bounded
from orchestrator.codec.people import time_of
from orchestrator.errors import Unavailable

LEAST_S = 0.1
"""Looking more often shows people nothing more, and costs the engine as much."""

_CLEAR, _HOME, _REST_OF_LINE, _BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"


@Parameter(name="*")
@dataclass(frozen=True)
class Watch:
    """Whether to go on.

    Parameters
    ----------
    watch:
        Show it again and again, until Ctrl-C.
    interval:
        Seconds between two looks.
    """

    watch: Annotated[bool, Parameter(name=["--watch", "-w"], negative=())] = False
    interval: Annotated[
        float, Parameter(name=["--interval", "-n"], validator=bounded("--interval", LEAST_S))
    ] = 2.0

    def show(self, look: Callable[[], None], format: output.Format) -> None:
        """Let ``look`` print once; or again and again, also while the engine is away.

        Raises:
            Unavailable: the engine does not answer the first time.
        """
        if not self.watch:
            look()
            return
        draw = _in_place if sys.stdout.isatty() else _below
        draw(look, self.interval, True, format)
        while True:
            time.sleep(self.interval)
            draw(lambda: _or_say_why(look), self.interval, False, format)


def _or_say_why(look: Callable[[], None]) -> None:
    try:
        look()
    except Unavailable as error:
        output.note(f"waiting: {error}")


def _below(look: Callable[[], None], interval_s: float, first: bool, format: output.Format) -> None:
    if not first and format != "jsonl":
        print()
    look()
    sys.stdout.flush()


class _Screen(io.StringIO):
    """What is printed, as if on the terminal."""

    def isatty(self) -> bool:
        return True


def _in_place(look: Callable[[], None], interval_s: float, first: bool, format: output.Format) -> None:
    """Draw over what was there, line by line, so that nothing flickers; as many as there is room for."""
    screen = _Screen()
    with redirect_stdout(screen), redirect_stderr(screen):
        output.write(f"every {interval_s:g} s: {time_of(time.time_ns() // 1_000_000)}\n")
        look()
    lines = screen.getvalue().splitlines()
    room = shutil.get_terminal_size().lines - 1
    if len(lines) > room:
        lines = [*lines[: room - 1], f"… {len(lines) - room + 1} more lines"]
    drawn = "".join(f"{line}{_REST_OF_LINE}\n" for line in lines)
    sys.stdout.write(f"{_CLEAR if first else ''}{_HOME}{drawn}{_BELOW}")
    sys.stdout.flush()
