"""Plain Python inside a workflow: answered deterministically, or refused with the name of what to use.

:func:`install` puts wrappers in the place of the functions in the tables below. A wrapper asks whether
workflow code runs on this thread (40 to 120 ns) and, if not, does as the original. There is no sandbox
and no second import: types stay what they are, and libraries work that know nothing of this.
"""

from __future__ import annotations

import _thread
import asyncio
import builtins
import ctypes
import datetime
import functools
import gc
import importlib
import io
import os
import random
import socket
import subprocess
import threading
import time
import types
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.errors import NotDeterministic
from orchestrator.workflow import ordered
from orchestrator.workflow.instance import Instance
from orchestrator.workflow.loop import WorkflowLoop

_running_loop: Final = asyncio._get_running_loop

Answer = Callable[..., Any]
"""What a function answers in a workflow: called with the instance, the original, and the arguments."""

_ACTIVITY = "do it in an activity"
_RANDOM = "use workflow.random() or workflow.uuid4()"

_REFUSED: Final[dict[str, list[tuple[Any, str]]]] = {
    "await workflow.sleep() or asyncio.sleep()": [(time, "sleep")],
    "use asyncio tasks, or an activity": [(threading.Thread, "start"), (_thread, "start_new_thread")],
    _ACTIVITY: [
        (builtins, "open"),
        (builtins, "input"),
        (io, "open"),
        *[
            (os, name)
            for name in ("open", "system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp")
        ],
        (subprocess.Popen, "__init__"),
        (socket.socket, "__init__"),
        *[(socket, name) for name in ("create_connection", "getaddrinfo", "gethostbyname", "socketpair")],
    ],
    _RANDOM: [
        (os, "urandom"),
        (os, "getrandom"),
        (uuid, "uuid1"),
        *[(uuid, name) for name in ("uuid6", "uuid7")],
        *[(random.SystemRandom, name) for name in ("random", "getrandbits", "randbytes")],
    ],
}
"""What cannot be replayed: what to do instead -> (owner, name). Names that a Python lacks are left out."""


def _seconds(instance: Instance, original: Any) -> float:
    return instance.now_ms / 1_000


def _nanoseconds(instance: Instance, original: Any) -> int:
    return instance.now_ms * 1_000_000


def _broken_down(instance: Instance, original: Any, seconds: float | None = None) -> Any:
    return original(instance.now_ms / 1_000 if seconds is None else seconds)


def _formatted(instance: Instance, original: Any, form: str, when: Any = None) -> Any:
    return original(form, time.localtime(instance.now_ms / 1_000) if when is None else when)


def _as_text(instance: Instance, original: Any, when: Any = None) -> Any:
    return original(time.localtime(instance.now_ms / 1_000) if when is None else when)


def _uuid4(instance: Instance, original: Any) -> uuid.UUID:
    return instance.uuid4()


def _seed(instance: Instance, original: Any, rng: Any, a: Any = None, version: int = 2) -> None:
    """Of ``random.Random()``: without a seed, it would take one from the system."""
    original(rng, instance.random.getrandbits(128) if a is None else a, version)


def _ordered_group(instance: Instance, original: Any, group: Any) -> None:
    original(group)
    group._tasks = ordered.OrderedSet()


def _answered_by(replacement: Callable[..., Any]) -> Answer:
    return lambda instance, original, *args, **kwargs: replacement(*args, **kwargs)


_ANSWERED: Final[dict[Answer, list[tuple[Any, str]]]] = {
    _seconds: [(time, name) for name in ("time", "monotonic", "perf_counter", "process_time", "thread_time")],
    _nanoseconds: [
        (time, name)
        for name in ("time_ns", "monotonic_ns", "perf_counter_ns", "process_time_ns", "thread_time_ns")
    ],
    _broken_down: [(time, name) for name in ("localtime", "gmtime", "ctime")],
    _formatted: [(time, "strftime")],
    _as_text: [(time, "asctime")],
    _uuid4: [(uuid, "uuid4")],
    _seed: [(random.Random, "seed")],
    _ordered_group: [(asyncio.TaskGroup, "__init__")],
    _answered_by(ordered.make_wait(asyncio.wait)): [(asyncio, "wait"), (asyncio.tasks, "wait")],
    _answered_by(ordered.as_completed): [(asyncio, "as_completed"), (asyncio.tasks, "as_completed")],
}
"""What is answered: by whom -> (owner, name). The functions of ``random`` follow in :func:`_table`."""


def _answer_of_rng(name: str) -> Answer:
    return lambda instance, original, *args, **kwargs: getattr(instance.random, name)(*args, **kwargs)


def _refusal(name: str, instead: str) -> Answer:
    def refuse(instance: Instance, original: Any, *args: Any, **kwargs: Any) -> Any:
        raise NotDeterministic(
            f"{name} cannot be used in a workflow, because it cannot be replayed; {instead}"
        )

    return refuse


def _table() -> list[tuple[Any, str, Answer]]:
    """All rows: owner, name of the function, what it answers in a workflow."""
    refused = [
        (owner, name, _refusal(f"{owner.__name__}.{name}()".replace(".__init__", ""), instead))
        for instead, places in _REFUSED.items()
        for owner, name in places
    ]
    answered = [(owner, name, answer) for answer, places in _ANSWERED.items() for owner, name in places]
    rng = [
        (random, name, _answer_of_rng(name))
        for name in random.__all__
        if isinstance(getattr(getattr(random, name), "__self__", None), random.Random)
    ]
    return [row for row in [*refused, *answered, *rng] if row[1] in vars(row[0])]


@dataclass(slots=True)
class _Installation:
    """What was replaced, so that it can be put back."""

    replaced: list[tuple[Any, str, Any]] = field(default_factory=list)
    wrappers: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def replace(self, owner: Any, name: str, wrapper: Any) -> None:
        """Put the wrapper in the original's place."""
        self.replaced.append((owner, name, vars(owner)[name]))
        setattr(owner, name, wrapper)


_installed: _Installation | None = None

_MONOTONIC: Final = time.monotonic


def install() -> None:
    """Make plain Python deterministic inside workflows, in this process. A second call changes nothing.

    Call it before the modules with workflows are imported, or :func:`adopt` each of them afterwards.
    """
    global _installed  # noqa: PLW0603  # what it describes is the process's own
    if _installed is not None:
        return
    importlib.import_module("asyncio.taskgroups")
    _installed = installation = _Installation()
    shared: dict[int, Any] = {}
    for owner, name, answer in _table():
        original = vars(owner)[name]
        wrapper = shared.setdefault(id(original), _wrapper(original, answer))
        installation.wrappers[id(original)] = (original, wrapper)
        installation.replace(owner, name, wrapper)
    # Asyncio's own loops ask for the time with each timer. No workflow runs on one, so they need not ask
    # where they run; a function of C does not bind, and is called at once.
    installation.replace(asyncio.BaseEventLoop, "time", _MONOTONIC)
    for name, wrapper in _CLOCKS_OF_DATETIME.items():
        _replace_in_type(datetime.datetime, name, wrapper)


def uninstall() -> None:
    """Put everything back, in adopted modules too. For tests."""
    global _installed  # noqa: PLW0603
    if _installed is None:
        return
    for owner, name, original in reversed(_installed.replaced):
        setattr(owner, name, original)
    for name, original in _ORIGINALS_OF_DATETIME.items():
        _replace_in_type(datetime.datetime, name, original)
    _installed = None


def adopt(module: types.ModuleType) -> None:
    """Replace what a module imported by name before :func:`install` (``from time import time``)."""
    if _installed is None:
        return
    for name, value in list(vars(module).items()):
        original, wrapper = _installed.wrappers.get(id(value), (None, None))
        if wrapper is not None and original is value:
            _installed.replace(module, name, wrapper)


def _wrapper(original: Any, answer: Answer) -> Any:
    """What stands in the original's place; as a class attribute, it binds iff the original does.

    The three differ only in how they are called; each asks by itself where it runs, for the whole process
    pays for every further call.
    """

    def function(*args: Any, **kwargs: Any) -> Any:
        loop = _running_loop()
        if type(loop) is WorkflowLoop:
            return answer(loop.host, original, *args, **kwargs)
        return original(*args, **kwargs)

    def method(_: Any, *args: Any, **kwargs: Any) -> Any:
        loop = _running_loop()
        if type(loop) is WorkflowLoop:
            return answer(loop.host, original, *args, **kwargs)
        return original(*args, **kwargs)

    def clock(_: Any) -> Any:
        loop = _running_loop()
        return answer(loop.host, original) if type(loop) is WorkflowLoop else original()

    if isinstance(original, types.FunctionType):
        return functools.wraps(original)(function)
    bound = clock if answer in (_seconds, _nanoseconds) else method
    return types.MethodType(functools.wraps(original)(bound), original)


# --- datetime.now() and utcnow() ---
# They are methods of a C type that read the clock themselves (today() asks time.time()). A subclass in
# their place would not be the type that pydantic, msgspec and isinstance() know, so the type's own
# dictionary is changed.


def _now(cls: Any, tz: datetime.tzinfo | None = None) -> Any:
    """As the original, by the time of the workflow."""
    loop = _running_loop()
    if type(loop) is WorkflowLoop:
        return cls.fromtimestamp(loop.time(), tz)
    return _DATETIME_NOW(cls, tz)


def _utcnow(cls: Any) -> Any:
    """As the original, by the time of the workflow."""
    loop = _running_loop()
    if type(loop) is WorkflowLoop:
        return cls.fromtimestamp(loop.time(), datetime.UTC).replace(tzinfo=None)
    return _DATETIME_UTCNOW(cls)


_CLOCKS_OF_DATETIME: Final[dict[str, Any]] = {"now": classmethod(_now), "utcnow": classmethod(_utcnow)}
_ORIGINALS_OF_DATETIME: Final[dict[str, Any]] = {
    name: vars(datetime.datetime)[name] for name in _CLOCKS_OF_DATETIME
}
_DATETIME_NOW, _DATETIME_UTCNOW = _ORIGINALS_OF_DATETIME.values()


def _replace_in_type(cls: type, name: str, value: Any) -> None:
    """``setattr`` for a type of C, which refuses it: its dictionary is behind the proxy of ``vars()``."""
    (dictionary,) = gc.get_referents(vars(cls))
    dictionary[name] = value
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))
