"""A namespace on Kafka, looked at from outside: all that is wrong; a role would stop at the first of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple, get_args

from orchestrator.codec import avro
from orchestrator.errors import ConfigError, OrchestratorError
from orchestrator.log.findings import Finding, failed, ok, warning
from orchestrator.log.kafka import admin
from orchestrator.log.kafka.cluster import Cluster, Found
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.port import Record
from orchestrator.log.schemas import Schemas
from orchestrator.log.topics import DEAD_LETTERS, HISTORY, META, TOPICS, WORKERS
from orchestrator.protocol.records import FEATURE_LEVEL, Namespace
from orchestrator.protocol.tasks import Beat

LISTEN_S = 2.5
"""Who lives beats once per second: two beats come in that time."""

RECENT_RECORDS = 5_000
"""Beats that are looked at: a minute of some eighty members."""


def examine(settings: KafkaSettings) -> Iterator[Finding]:
    """The broker, the namespace, its topics, our rights and the dead letters; ends where it cannot go on."""
    try:
        cluster = Cluster(settings)
    except OrchestratorError as error:
        yield failed("broker", error)
        return
    yield ok(
        "broker", f"{cluster.brokers} answer at {settings.bootstrap}, of the cluster {cluster.cluster_id}"
    )
    try:
        found = cluster.topics([settings.topic(name) for name in TOPICS])
        namespace = admin.namespace_of(cluster, settings) if settings.topic(META) in found else None
        if namespace is None:
            raise admin.no_namespace(settings)
    except OrchestratorError as error:
        yield failed("namespace", error)
        return
    yield ok(
        "namespace",
        f"{settings.namespace}, of {namespace.partitions} partitions; its feature level is "
        f"{namespace.feature_level}, and this version knows those up to {FEATURE_LEVEL}",
    )
    try:
        yield from _topics(settings, cluster, namespace, found)
        yield from _rights(settings, cluster, found)
        yield from _dead_letters(settings, cluster, found)
    except OrchestratorError as error:
        yield failed("broker", error)


def _topics(
    settings: KafkaSettings, cluster: Cluster, namespace: Namespace, found: Mapping[str, Found]
) -> Iterator[Finding]:
    wrong = [
        failed("topics", problem)
        for problem in admin.topic_problems(settings, namespace, cluster.cluster_id, found, TOPICS)
    ]
    yield from wrong or [ok("topics", f"all {len(TOPICS)} are there, as the namespace was made")]
    problems = admin.setting_problems(settings, cluster, found, "coordinator")
    unset = [failed("settings", problem) for problem in problems]
    yield from unset or [ok("settings", "topics lose nothing, and take the largest records")]
    single = [name for name, topic in found.items() if topic.replicas == 1]
    if single and cluster.brokers > 1:
        yield warning(
            "replicas",
            f"{len(single)} topics have one copy of each record, such as {single[0]}",
            "add replicas with kafka-reassign-partitions",
        )


def _rights(settings: KafkaSettings, cluster: Cluster, found: Mapping[str, Found]) -> Iterator[Finding]:
    if not any(topic.allowed for topic in found.values()):
        yield ok("rights", "the cluster does not say who may do what")
        return
    lacking: dict[str, ConfigError] = {}
    roles = get_args(admin.Role)
    for role in roles:
        for problem in admin.right_problems(settings, cluster, found, role):
            lacking.setdefault(role, problem)
    for problem in lacking.values():
        state, what, said, advice = failed("rights", problem)
        yield Finding("warning" if len(lacking) < len(roles) else state, what, said, advice)
    if may := [role for role in roles if role not in lacking]:
        yield ok("rights", f"this user may be a {', a '.join(may)}")


def _dead_letters(settings: KafkaSettings, cluster: Cluster, found: Mapping[str, Found]) -> Iterator[Finding]:
    name = settings.topic(DEAD_LETTERS)
    if name not in found:
        return
    count = cluster.records({name: found[name].partitions})[name]
    if count:
        yield warning(
            "dead letters",
            f"{count} records of the last 30 days could not be used",
            "'orchestrator topic tail dead-letters' shows them, with the reasons",
        )
    else:
        yield ok("dead letters", "none")


class Heard(NamedTuple):
    """What members said of themselves, with the broker's time of each beat, oldest first.

    ``ahead_ms`` is how far this machine's clock is ahead of the broker's; None if nobody beats now.
    ``partitions`` are those of history.
    """

    partitions: int
    beats: tuple[tuple[int, Beat], ...]
    ahead_ms: int | None


def listen(settings: KafkaSettings) -> Heard:
    """The beats of the last while, and those that come now; takes at most some seconds.

    Raises:
        LogError: there is no such topic.
        Unavailable: the broker does not answer.
    """
    log = KafkaLog(settings, member="doctor")
    try:
        Schemas().follow(log)
        end = log.end(WORKERS, 0)
        records = log.read(WORKERS, 0, max(0, end - RECENT_RECORDS), RECENT_RECORDS)
        log.seek(WORKERS, 0, end)
        ahead_ms, deadline_s = None, time.monotonic() + LISTEN_S
        while ahead_ms is None and time.monotonic() < deadline_s:
            came = [record for record in log.poll(0.1).records if record.topic == WORKERS]
            records += came
            if came:
                ahead_ms = time.time_ns() // 1_000_000 - came[-1].time_ms
        beats = tuple(beat for record in records if (beat := _beat(record)) is not None)
        return Heard(log.partitions(HISTORY), beats, ahead_ms)
    finally:
        log.close()


def _beat(record: Record) -> tuple[int, Beat] | None:
    if record.value is None:
        return None
    try:
        return record.time_ms, avro.decode(record.value, WORKERS)
    except avro.DecodeError:
        return None  # coordinators set it aside
