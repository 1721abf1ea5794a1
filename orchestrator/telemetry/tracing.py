"""Whether this process traces.

It does if OpenTelemetry has a tracer provider in it: set up by ``opentelemetry-instrument``, or by the user's
own program or module. Nothing else has to be said. Where nothing has imported OpenTelemetry, neither does
this.
"""

from __future__ import annotations

import sys
import threading

from orchestrator.telemetry.traces import Traces, Untraced
from orchestrator.telemetry.versions import version

FLUSH_S = 2.0
"""What an exporter gets to send its last spans when a role ends: a collector that is away holds nobody up."""


def find_traces() -> Traces:
    """What the roles of this process tell; asked when a role begins, so set OpenTelemetry up before."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return Untraced()
    tracer = api.get_tracer("orchestrator", version())
    if isinstance(tracer, api.ProxyTracer | api.NoOpTracer):
        return Untraced()
    from orchestrator.telemetry.spans import Spans

    return Spans(tracer)


def flush() -> None:
    """Let the exporter send what it has, because the process is about to end at once."""
    api = sys.modules.get("opentelemetry.trace")
    send = getattr(api.get_tracer_provider(), "force_flush", None) if api is not None else None
    if send is not None:
        thread = threading.Thread(target=send, name="last spans", daemon=True)
        thread.start()
        thread.join(FLUSH_S)
