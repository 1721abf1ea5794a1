from __future__ import annotations

import pytest

from orchestrator.log import tail as tail_module
from orchestrator.log.port import Record
from orchestrator.log.tail import Tail


def records(first: int, count: int, size: int = 0) -> list[Record]:
    return [Record("history", 0, n, 0, b"", b"x" * size, {}) for n in range(first, first + count)]


def test_it_brings_slices_of_what_it_holds() -> None:
    tail = Tail(start=3, end=10, ephemeral=False)
    tail.extend(records(10, 5))
    assert (tail.start, tail.base, tail.end, tail.first) == (3, 10, 15, 3)
    assert [r.offset for r in tail.slice(11, 2)] == [11, 12]
    assert tail.slice(15, 2) == []


@pytest.mark.parametrize("ephemeral", [False, True])
def test_it_forgets_the_oldest_when_it_is_full(monkeypatch: pytest.MonkeyPatch, ephemeral: bool) -> None:
    per_record = tail_module.RECORD_OVERHEAD_BYTES + 100
    monkeypatch.setattr(tail_module, "DURABLE_TAIL_BYTES", 8 * per_record)
    monkeypatch.setattr(tail_module, "EPHEMERAL_TAIL_BYTES", 8 * per_record)
    tail = Tail(start=0, end=0, ephemeral=ephemeral)
    for first in range(0, 100, 3):
        tail.extend(records(first, 3, size=100))
        held = tail.slice(tail.base, 1_000)
        assert [r.offset for r in held] == list(range(tail.base, tail.end))
        assert len(held) <= 8
    assert tail.base >= 90
    assert tail.first == (tail.base if ephemeral else 0)


def test_one_record_is_kept_however_large_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "DURABLE_TAIL_BYTES", 10)
    tail = Tail(start=0, end=0, ephemeral=False)
    tail.extend(records(0, 2, size=100))
    assert (tail.base, tail.end) == (1, 2)
