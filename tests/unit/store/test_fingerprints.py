"""Which failures are alike."""

from __future__ import annotations

import pytest

from orchestrator.protocol.values import Failure, FailureKind
from orchestrator.store.fingerprints import MAX_MESSAGE_CHARS, Alike, alike, normalized


def failure(message: str, type: str = "Refused", **fields: object) -> Failure:
    return Failure(kind=FailureKind.APPLICATION, type=type, message=message, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("gateway 504", "gateway <n>"),
        ("took 1,204.5 s at 12:30:01", "took <n> s at <n>"),
        ("order-17 of m-7731", "order-<n> of m-<n>"),
        ("no run 019a8f3c5e7b0f1e2d3c4b5a69788796", "no run <id>"),
        ("charge ch_3MqLiJ2eZvKY failed", "charge <id> failed"),
        ("at 0x7f9a10b2c3d4", "at <id>"),
        ("id 6d9e2a34-90c1-4b1d-8f3e-2a1b3c4d5e6f is unknown", "id <uuid> is unknown"),
        ("step2 of v1", "step<n> of v<n>"),
        ("no such person", "no such person"),
        ("\n  first line\nat line 7", "first line"),
        ("", ""),
        ("x" * 999, "x" * MAX_MESSAGE_CHARS),
    ],
)
def test_what_tells_one_message_from_another_is_left_out(message: str, expected: str) -> None:
    assert normalized(message) == expected


def test_what_is_alike_has_one_name_and_what_is_not_has_others() -> None:
    one = alike(failure("gateway 504"), "Order", "charge")
    assert one == alike(failure("gateway 502"), "Order", "charge")
    assert one[1:] == ("Order", "charge", "Refused", "gateway <n>")
    others = [
        alike(failure("gateway 504"), "Ship", "charge"),
        alike(failure("gateway 504"), "Order", "ship"),
        alike(failure("gateway 504", "Timeout"), "Order", "charge"),
        alike(failure("card 504"), "Order", "charge"),
    ]
    assert len({found.fingerprint for found in (one, *others)}) == 5


def test_the_root_of_a_failure_counts_and_the_activity_that_it_came_from() -> None:
    root = failure("sanctions hit")
    wrapped = Failure(
        kind=FailureKind.ACTIVITY, message="activity 'check' failed", activity_type="check", cause=root
    )
    found = alike(wrapped, "Order")
    assert found == Alike(found.fingerprint, "Order", "check", "Refused", "sanctions hit")
    lost = Failure(kind=FailureKind.WORKER_LOST, message="gone")
    assert alike(lost, "Order", "pay")[1:] == ("Order", "pay", "worker-lost", "gone")
