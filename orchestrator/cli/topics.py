"""``orchestrator topics ...``: the topics of a namespace on Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from orchestrator.cli import exits, output
from orchestrator.cli.kafka import Cluster
from orchestrator.cli.output import Format
from orchestrator.log.kafka import admin

Output = Annotated[Format, Parameter(name=["--output", "-o"], help="How it is printed.")]

_COLUMNS = {
    "TOPIC": "name",
    "STATE": "state",
    "PARTITIONS": "partitions",
    "REPLICAS": "replicas",
    "RECORDS": "records",
    "REMARK": "remark",
}


def create_(
    *,
    partitions: Annotated[
        int | None,
        Parameter(help="Of commands and history, for ever: at most so many coordinators share the work."),
    ] = None,
    replication_factor: Annotated[
        int | None, Parameter(help="Copies of each record; default 3, or as many as there are brokers.")
    ] = None,
    registry: Annotated[
        str,
        Parameter(
            help="A schema registry, such as http://127.0.0.1:8081: it is told our schemas, by its ids."
        ),
    ] = "",
    output_: Output = "table",
    cluster: Cluster | None = None,
) -> None:
    """Make the topics of a namespace; prints what was made and what was there."""
    for name, count in (("--partitions", partitions), ("--replication-factor", replication_factor)):
        if count is not None and count < 1:
            raise exits.CommandUsage(f"{name} is {count}; at least one is needed")
    settings = (cluster or Cluster()).settings()
    reports = admin.create(settings, partitions=partitions, replicas=replication_factor, registry=registry)
    made = sum(report.state == "created" for report in reports)
    _print(reports, output_)
    output.note(f"namespace {settings.namespace}: {made} topics made, {len(reports) - made} were there")


def list_(*, output_: Output = "table", cluster: Cluster | None = None) -> None:
    """Show the topics of a namespace as they are."""
    _print(admin.survey((cluster or Cluster()).settings()), output_)


def _print(reports: Sequence[admin.TopicReport], format: Format) -> None:
    output.rows([report._asdict() for report in reports], _COLUMNS, format, key="name")
