"""What the read side knows, for people and programs that know nothing of payloads: plain JSON values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from orchestrator.codec.payloads import DEFAULT
from orchestrator.errors import PayloadError
from orchestrator.protocol.values import Payload


def plain(value: Any) -> Any:
    """A structure with every payload in it as the JSON value that it holds.

    A payload that is not JSON is shown as ``{"encoding": ..., "data": base64}``.
    """
    for kind, convert in _CONVERT.items():
        if isinstance(value, kind):
            return convert(value)
    return value


def _payload(payload: Payload) -> Any:
    try:
        value = DEFAULT.from_payload(payload)
    except PayloadError:  # another codec wrote it
        value = payload.data
    return {"encoding": payload.encoding, "data": value} if isinstance(value, bytes) else value


def _struct(value: msgspec.Struct) -> dict[str, Any]:
    return {name: plain(getattr(value, name)) for name in value.__struct_fields__}


_CONVERT: dict[type, Callable[[Any], Any]] = {
    Payload: _payload,
    msgspec.Struct: _struct,
    tuple: lambda values: [plain(item) for item in values],
    list: lambda values: [plain(item) for item in values],
    dict: lambda values: {key: plain(item) for key, item in values.items()},
}
