"""Where the code of a run waits: the answer to the built-in query ``__stack``."""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, Final

STACK_QUERY: Final = "__stack"
"""The name of the query."""

_OWN = os.path.dirname(__file__) + os.sep


def describe_stack(tasks: Iterable[Any]) -> str:
    """Each task of a run and the lines in which it waits, outermost first, without the engine's own."""
    return "\n".join(_describe(task) for task in tasks) or "no code waits"


def _describe(task: Any) -> str:
    lines = [f"task {task.get_name()!r}"]
    for frame in _frames(task.get_coro()):
        path, number = frame.f_code.co_filename, frame.f_lineno
        if path.startswith(_OWN):
            continue
        lines.append(f"  {path}:{number} {frame.f_code.co_qualname}")
        source = linecache.getline(path, number).strip()
        if source:
            lines.append(f"    {source}")
    return "\n".join(lines)


def _frames(awaitable: Any) -> Iterator[FrameType]:
    """The frames of coroutines, generators and async generators that wait for one another."""
    while awaitable is not None:
        for prefix in ("cr", "gi", "ag"):
            frame = getattr(awaitable, f"{prefix}_frame", None)
            if frame is not None:
                yield frame
                awaitable = getattr(awaitable, _AWAITED[prefix])
                break
        else:
            return


_AWAITED: Final = {"cr": "cr_await", "gi": "gi_yieldfrom", "ag": "ag_await"}
