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

from orchestrator.coordinator.metering import MetricsMeter
from orchestrator.protocol.views import PartitionFollowed, ViewStatus
from orchestrator.telemetry.metrics import CoordinatorMetrics, WorkerMetrics
from orchestrator.view.metering import measure_view

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs/monitoring.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
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


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_the_section_that_names_it(rule: dict[str, Any]) -> None:
    document, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert document == "docs/operations.md"
    sections = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-"): text
        for title, text in re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", OPERATIONS, re.MULTILINE)
    }
    assert f"`{rule['alert']}`" in sections[anchor]


def _found(expression: str) -> list[promql_parser.Expr]:
    """The parts of an expression, from the outside in."""
    found: list[promql_parser.Expr] = []
    promql_parser.walk(promql_parser.parse(expression), found.append)
    return found


def test_what_is_too_low_is_noticed_when_nobody_tells_it() -> None:
    """A comparison over no series is nothing, and no alert."""
    low = [
        part
        for rule in ALERTS
        for part in _found(rule["expr"])
        if isinstance(part, promql_parser.BinaryExpr) and str(part.op) in ("<", "<=", "==")
    ]
    assert low
    for part in low:
        calls = [one.func.name for one in _found(str(part.lhs)) if isinstance(one, promql_parser.Call)]
        assert "vector" in calls, part.prettify()


def test_what_increases_is_there_before_its_first_increase() -> None:
    """A counter whose series appears as 1 has not increased, for Prometheus."""
    registry = CollectorRegistry()
    MetricsMeter(CoordinatorMetrics(registry), ["Order"])
    samples = {sample.name for family in registry.collect() for sample in family.samples}
    increased = {
        part.vector_selector.name
        for rule in ALERTS
        for part in _found(rule["expr"])
        if isinstance(part, promql_parser.MatrixSelector)
    }
    assert "orchestrator_dead_letters_total" in increased
    assert increased <= samples


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
