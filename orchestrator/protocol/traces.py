"""Trace context: the headers by which spans of many processes find together, as W3C has them.

They come with the command that starts a run, stand in each of its turns, and go on with its tasks and
business events. Only who has OpenTelemetry looks inside; everybody else hands them on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"

PARENT_SPAN = "parent-span"
"""In the turns of a run that has a span of its own, which ``traceparent`` names: whose child that span is."""

MAX_TRACESTATE_CHARS = 512
"""The least that W3C asks everybody to pass on. It is written with every turn, so not more."""

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")

NO_TRACE: dict[str, str] = {}
"""No trace context. Shared, and never changed."""


def trace_context(headers: Mapping[str, str]) -> dict[str, str]:
    """What headers say of a trace; what cannot be understood says nothing."""
    parent = headers.get(TRACEPARENT)
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return NO_TRACE
    state = headers.get(TRACESTATE, "")
    if not state or len(state) > MAX_TRACESTATE_CHARS or not state.isascii() or not state.isprintable():
        return {TRACEPARENT: parent}
    return {TRACEPARENT: parent, TRACESTATE: state}


def trace_of_record(headers: Mapping[str, bytes]) -> dict[str, str]:
    """What the headers of a record say of a trace, whoever's producer wrote them."""
    found = ((name, headers[name]) for name in (TRACEPARENT, TRACESTATE) if name in headers)
    return trace_context({name: value.decode(errors="replace") for name, value in found})


def handed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """What of the headers of a turn goes on with what the turn sends."""
    if not headers:
        return NO_TRACE
    return {name: headers[name] for name in (TRACEPARENT, TRACESTATE) if name in headers}
