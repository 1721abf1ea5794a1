"""Metrics and health over HTTP, of a role that has no other API."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.errors import ConfigError, PortInUse
from orchestrator.telemetry.endpoint import Operations, serving
from orchestrator.telemetry.metrics import CoordinatorMetrics, WorkerMetrics, new_registry

HOST = "127.0.0.1"


class Role:
    """What is wrong with it, as a test says."""

    dead = ""
    busy = ""

    def operations(self, registry: CollectorRegistry) -> Operations:
        return Operations(registry, lambda: self.dead, lambda: self.dead or self.busy)


@pytest.fixture
def role() -> Role:
    return Role()


@pytest.fixture
def http(role: Role) -> Iterator[httpx.Client]:
    registry = new_registry("coordinator")
    CoordinatorMetrics(registry)
    with serving(role.operations(registry), HOST, 0) as address, httpx.Client(base_url=address) as client:
        yield client


def test_metrics_are_in_the_format_that_prometheus_reads(http: httpx.Client) -> None:
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"orchestrator_info", "orchestrator_claims", "process_cpu_seconds"} <= names
    openmetrics = http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.text.endswith("# EOF\n")


def test_names_say_what_is_meant() -> None:
    registry = CollectorRegistry()
    CoordinatorMetrics(registry)
    WorkerMetrics(registry)
    for family in registry.collect():
        assert family.name.startswith("orchestrator_"), family.name
        assert family.documentation.endswith("."), family.name
        if family.type == "histogram" and family.name != "orchestrator_activity_attempts":
            assert family.name.endswith("_seconds"), family.name


def test_a_role_that_works_is_alive_and_ready(http: httpx.Client) -> None:
    assert [http.get(path).text for path in ("/live", "/ready")] == ["ok\n", "ok\n"]


def test_one_that_cannot_work_now_is_alive(http: httpx.Client, role: Role) -> None:
    role.busy = "Kafka does not answer"
    ready = http.get("/ready")
    assert (ready.status_code, ready.text) == (503, "Kafka does not answer\n")
    assert http.get("/live").status_code == 200


def test_one_that_only_a_restart_helps_is_neither(http: httpx.Client, role: Role) -> None:
    role.dead = "the loop has not turned for 11 s"
    assert [http.get(path).status_code for path in ("/live", "/ready")] == [503, 503]


def test_other_paths_say_which_there_are(http: httpx.Client) -> None:
    answer = http.get("/")
    assert answer.status_code == 404
    assert "/metrics, /live and /ready" in answer.text


def test_a_port_in_use_is_one_message(role: Role) -> None:
    operations = role.operations(CollectorRegistry())
    with serving(operations, HOST, 0) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(PortInUse, match="another --metrics-port"), serving(operations, HOST, port):
            pass


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), (HOST, 70_000)])
def test_what_cannot_be_listened_on_is_one_message(role: Role, host: str, port: int) -> None:
    with (
        pytest.raises(ConfigError, match="cannot listen on"),
        serving(role.operations(CollectorRegistry()), host, port),
    ):
        pass
