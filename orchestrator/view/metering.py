"""What a view tells Prometheus: how far it has come, asked when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from orchestrator.protocol.views import ViewStatus
from orchestrator.telemetry.metrics import PREFIX


def measure_view(registry: CollectorRegistry, status: Callable[[], ViewStatus]) -> None:
    """Register what a view's status says; it is asked for at each scrape, by any thread."""
    registry.register(_OfStatus(status))


class _OfStatus(Collector):
    def __init__(self, status: Callable[[], ViewStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The status as gauges."""
        found = self._status()

        def gauge(name: str, about: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"{PREFIX}_view_{name}", about, labels=["partition"])

        lag = gauge("lag_records", "Records of history that are known to come.")
        ready = gauge("ready", "1 if the partition is shown, 0 while it is read.")
        for followed in found.partitions:
            lag.add_metric([str(followed.partition)], followed.lag_records)
            ready.add_metric([str(followed.partition)], followed.ready)
        yield lag
        yield ready
        yield GaugeMetricFamily(
            f"{PREFIX}_view_dead_letters",
            "Records that nobody could use, as far as they are kept.",
            value=found.dead_letters,
        )
        yield GaugeMetricFamily(
            f"{PREFIX}_view_log_away", "1 while the log does not answer.", value=bool(found.trouble)
        )
