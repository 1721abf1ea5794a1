"""Whether this process traces.

It does if OpenTelemetry has a tracer provider in it: set up by ``opentelemetry-instrument``, or by the user's
own program or module. Nothing else has to be said. Where nothing has imported OpenTelemetry, neither does
this.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

from orchestrator.telemetry.traces import Traces, Untraced


def find_traces() -> Traces:
    """What the roles of this process tell; asked when a role begins, so set OpenTelemetry up before."""
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return Untraced()
    tracer = api.get_tracer("orchestrator", version("kafka-orchestrator"))
    if isinstance(tracer, api.ProxyTracer | api.NoOpTracer):
        return Untraced()
    from orchestrator.telemetry.spans import Spans

    return Spans(tracer)
