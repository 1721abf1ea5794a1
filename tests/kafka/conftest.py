"""Fixtures of this folder alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.kafka.raw import RawLog


@pytest.fixture
def raws() -> Iterator[Callable[[str, str], RawLog]]:
    """Bare sides of a log, by the address of a broker and a namespace."""
    with ExitStack() as stack:

        def make(bootstrap: str, namespace: str) -> RawLog:
            made = RawLog(bootstrap, namespace)
            stack.callback(made.close)
            return made

        yield make
