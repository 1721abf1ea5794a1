"""Ending coroutines that are no longer wanted."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any, Final

MAX_CLOSE_ATTEMPTS: Final = 100
"""How often a coroutine that awaits something while it is closed is closed again, before it is abandoned."""


def close_coroutine(outermost: Any) -> None:
    """Close a coroutine, and what it awaits; again, if ``finally`` blocks await what does not come."""
    chain, coroutine = [], outermost
    while getattr(coroutine, "cr_frame", None) is not None:
        chain.append(coroutine)
        coroutine = coroutine.cr_await
    for coroutine in chain:  # as a rule, closing the first closes all
        for _ in range(MAX_CLOSE_ATTEMPTS):
            if coroutine.cr_frame is None:
                break
            with suppress(BaseException):  # whatever its finally blocks raise: Evicted, as a rule
                coroutine.close()
        else:
            # No close() ends it. A reference that nobody drops keeps the interpreter from trying once more,
            # anywhere, or in its last moments, when the code's own globals are gone.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(coroutine))
