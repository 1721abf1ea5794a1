"""What roles do to their process: here, to its garbage collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from orchestrator.cli.process import settle_collector


class Node:
    """Something that can be in a cycle."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def _collector_as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_what_exists_is_looked_at_no_more() -> None:
    settle_collector()
    assert gc.get_freeze_count() > 1_000
    assert len(gc.get_objects()) < 1_000


def test_garbage_in_cycles_is_still_collected() -> None:
    settle_collector()
    gone = weakref.ref(Node())
    kept = [Node() for _ in range(100_000)]
    assert gone() is None
    assert len(kept) == 100_000
