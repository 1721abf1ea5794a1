"""How far everything that follows from history has left."""

from __future__ import annotations

from orchestrator.coordinator.outflow import Outflow, Receipt


def test_it_moves_in_the_order_of_the_turns_whatever_the_order_of_the_answers() -> None:
    outflow = Outflow(4)
    first, second = outflow.expect(5, 2, 0.0), outflow.expect(9, 1, 0.0)
    seen = []
    for sent in (second, first, first):
        outflow.settle(Receipt(0, "n", sent))
        seen.append(outflow.sent_through)
    assert seen == [4, 4, 9]


def test_how_long_the_oldest_has_waited() -> None:
    outflow = Outflow(-1)
    assert outflow.overdue_s(50.0) == 0.0
    first = outflow.expect(5, 1, 10.0)
    outflow.expect(6, 1, 13.0)
    assert outflow.overdue_s(15.0) == 5.0
    outflow.settle(Receipt(0, "n", first))
    assert outflow.overdue_s(15.0) == 2.0
