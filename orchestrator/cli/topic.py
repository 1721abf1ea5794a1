"""``orchestrator topic ...``: the topics of a namespace on Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from orchestrator.cli import exits, output
from orchestrator.cli.kafka import Cluster
from orchestrator.cli.options import bounded
from orchestrator.cli.output import Format

if TYPE_CHECKING:
    from orchestrator.log.kafka.admin import TopicReport

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
        Parameter(
            help="Of commands and history, for ever: at most so many coordinators share the work.",
            validator=bounded("--partitions", 1),
        ),
    ] = None,
    replication_factor: Annotated[
        int | None,
        Parameter(
            help="Copies of each record; default 3, or as many as there are brokers.",
            validator=bounded("--replication-factor", 1),
        ),
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
    from orchestrator.log.kafka import admin

    settings = (cluster or Cluster()).settings()
    reports = admin.create(settings, partitions=partitions, replicas=replication_factor, registry=registry)
    made = sum(report.state == "created" for report in reports)
    _print(reports, output_)
    output.note(f"namespace {settings.namespace}: {made} topics made, {len(reports) - made} were there")


def list_(*, output_: Output = "table", cluster: Cluster | None = None) -> None:
    """Show the topics of a namespace as they are."""
    from orchestrator.log.kafka import admin

    _print(admin.survey((cluster or Cluster()).settings()), output_)


def tail_(
    topic: Annotated[str, Parameter(name="TOPIC")],
    /,
    *,
    partition: Annotated[
        list[int] | None, Parameter(help="Only this one; repeat it for several.", negative=())
    ] = None,
    limit: Annotated[
        int,
        Parameter(help="So many of the last offsets of each partition.", validator=bounded("--limit", 0)),
    ] = 10,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative=(), help="Go on.")] = False,
    output_: Annotated[
        Literal["text", "jsonl"], Parameter(name=["--output", "-o"], help="How it is printed.")
    ] = "text",
    cluster: Cluster | None = None,
) -> None:
    """Print the newest records of a topic, decoded.

    Parameters
    ----------
    topic:
        Without the namespace: commands, history, tasks, …
    """
    from orchestrator.cli import tail
    from orchestrator.log.kafka import admin
    from orchestrator.log.kafka.log import KafkaLog
    from orchestrator.log.topics import TOPICS

    if topic not in TOPICS:
        raise exits.CommandUsage(f"there is no topic {topic!r}; the topics are {', '.join(TOPICS)}")
    settings = (cluster or Cluster()).settings()
    admin.check(settings, "view")
    log = KafkaLog(settings, member="tail")
    try:
        count = log.partitions(topic)
        wanted = partition or list(range(count))
        if not set(wanted) <= set(range(count)):
            raise exits.CommandUsage(f"{topic} has the partitions 0 to {count - 1}")
        for record in tail.records(log, topic, tail.newest(log, topic, wanted, limit), follow=follow):
            shown = tail.line(record) if output_ == "text" else output.to_jsonl([tail.described(record)])
            print(shown, flush=follow)
    finally:
        log.close()


def _print(reports: Sequence[TopicReport], format: Format) -> None:
    output.rows([report._asdict() for report in reports], _COLUMNS, format, key="name")
