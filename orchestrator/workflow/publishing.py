"""What ``workflow.publish`` asks for: its arguments, checked and encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.codec.payloads import PayloadConverter
from orchestrator.errors import PayloadError, UsageError
from orchestrator.protocol.actions import PublishEvent
from orchestrator.protocol.ids import check_topic
from orchestrator.protocol.publications import OUR_HEADERS
from orchestrator.protocol.texts import check_text
from orchestrator.protocol.values import MAX_PAYLOAD_BYTES


def to_action(
    converter: PayloadConverter,
    topic: str,
    event: Any,
    key: str | bytes,
    headers: Mapping[str, str | bytes] | None,
) -> PublishEvent:
    """The action; raises as ``workflow.publish`` says."""
    action = PublishEvent(
        topic=check_topic(topic),
        key=_bytes(key, "the key"),
        payload=converter.to_payload(event),
        headers=_headers({} if headers is None else headers),
    )
    size = len(action.key) + len(action.payload.data)
    size += sum(len(name.encode()) + len(value) for name, value in action.headers.items())
    if size > MAX_PAYLOAD_BYTES:
        raise PayloadError(
            f"the event for topic {topic!r} has {size} bytes with its key and headers, at most "
            f"{MAX_PAYLOAD_BYTES} are allowed; store large data elsewhere and publish a reference"
        )
    return action


def _headers(headers: Mapping[str, str | bytes]) -> dict[str, bytes]:
    if not isinstance(headers, Mapping):
        raise UsageError(f"headers are {headers!r}; give a dict of names and values")
    found: dict[str, bytes] = {}
    for given, value in headers.items():
        name = check_text(given, "the name of a header")
        if not name:
            raise UsageError("the name of a header is ''; expected text, such as 'source'")
        if name in OUR_HEADERS:
            raise UsageError(
                f"the header {name!r} is set by the engine, as {', '.join(sorted(OUR_HEADERS))} all are; "
                "use another name"
            )
        found[name] = _bytes(value, f"the header {name!r}")
    return found


def _bytes(value: str | bytes, what: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return check_text(value, what).encode()
    raise UsageError(f"{what} is of type {type(value).__name__}; expected text or bytes")
