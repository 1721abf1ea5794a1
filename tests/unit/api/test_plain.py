from __future__ import annotations

import msgspec
import pytest

from orchestrator.api.plain import plain
from orchestrator.codec.payloads import DEFAULT
from orchestrator.protocol.values import Failure, FailureKind, Payload


@pytest.mark.parametrize("value", [None, 1, "text", [1, {"a": None}], {"data": 1}])
def test_values_are_shown_as_they_are(value: object) -> None:
    assert plain(DEFAULT.to_payload(value)) == value


@pytest.mark.parametrize(
    "payload", [Payload(data=b"\x00", encoding="aes"), Payload(data=b"{", encoding="json/plain")]
)
def test_what_cannot_be_read_is_shown_as_bytes(payload: Payload) -> None:
    shown = msgspec.to_builtins(plain(payload))
    assert shown == {"encoding": payload.encoding, "data": msgspec.to_builtins(payload.data)}


def test_payloads_are_found_at_any_depth() -> None:
    inner = Failure(kind=FailureKind.APPLICATION, message="in", details=(DEFAULT.to_payload({"a": 1}),))
    outer = Failure(kind=FailureKind.APPLICATION, message="out", cause=inner)
    assert plain((outer,))[0]["cause"]["details"] == [{"a": 1}]
