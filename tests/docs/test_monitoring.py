"""The dashboard, the alerts and the documentation speak of metrics that exist, and of all of them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from orchestrator.protocol.views import PartitionFollowed, ViewStatus
from orchestrator.telemetry.metrics import CoordinatorMetrics, WorkerMetrics
from orchestrator.view.metering import measure_view

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs/monitoring.md").read_text()
ALERTS = yaml.safe_load((ROOT / "monitoring/alerts.yml").read_text())["groups"][0]["rules"]
PANELS = json.loads((ROOT / "monitoring/dashboard.json").read_text())["panels"]
EXPRESSIONS = [rule["expr"] for rule in ALERTS] + [
    target["expr"] for panel in PANELS for target in panel.get("targets", ())
]
_NAME = re.compile(r"\borchestrator_[a-z_]+")
_SUFFIX = re.compile(r"_(bucket|count|sum)$")


def metrics() -> dict[str, tuple[str, ...]]:
    """All metrics of all roles, as they are asked for, with their labels."""
    registry = CollectorRegistry()
    CoordinatorMetrics(registry)
    WorkerMetrics(registry)
    followed = PartitionFollowed(partition=0, offset=0, lag_records=0, ready=True)
    measure_view(registry, lambda: ViewStatus(partitions=(followed,)))
    labels = {
        instrument._name: instrument._labelnames
        for maker in (CoordinatorMetrics, WorkerMetrics)
        for instrument in vars(maker(CollectorRegistry())).values()
    }
    found = {}
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        seen = tuple(family.samples[0].labels) if family.samples else ()
        found[name] = tuple(labels.get(family.name, seen))
    return found


def test_the_document_tells_of_each_metric_and_its_labels() -> None:
    rows = re.findall(r"^\| `(orchestrator_\w+)` \| ([^|]*)\|", DOCUMENT, re.MULTILINE)
    told = {name: tuple(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert told == metrics()


def test_the_document_says_what_to_do_at_each_alert() -> None:
    told = re.findall(r"^\| `(Orchestrator\w+)` \| [^|]+\|", DOCUMENT, re.MULTILINE)
    assert told == [rule["alert"] for rule in ALERTS]
    assert all(rule["labels"]["severity"] in ("page", "ticket") for rule in ALERTS)
    assert all(rule["annotations"]["summary"] for rule in ALERTS)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_promql_over_metrics_that_exist(expression: str) -> None:
    promql_parser.parse(expression.replace("$__rate_interval", "5m"))
    known = {*metrics(), "orchestrator_info"}
    asked = {_SUFFIX.sub("", name) for name in _NAME.findall(expression)}
    assert asked
    assert asked <= known


@pytest.mark.parametrize(
    "panel", [panel for panel in PANELS if panel["type"] != "row"], ids=lambda p: p["title"]
)
def test_panels_do_not_overlap(panel: dict[str, Any]) -> None:
    place = panel["gridPos"]
    assert place["x"] + place["w"] <= 24
    for other in PANELS:
        there = other["gridPos"]
        beside = place["x"] + place["w"] <= there["x"] or there["x"] + there["w"] <= place["x"]
        apart = place["y"] + place["h"] <= there["y"] or there["y"] + there["h"] <= place["y"]
        assert other is panel or beside or apart, (panel["title"], other["title"])
