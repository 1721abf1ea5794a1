"""The topics of a namespace: made once, looked at by operators, and checked by every role at its start."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

import msgspec

from orchestrator.codec import avro
from orchestrator.codec.avro import MAX_RECORD_BYTES
from orchestrator.errors import ConfigError
from orchestrator.log.kafka.cluster import Cluster, Found, Wanted
from orchestrator.log.kafka.registry import register
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.topics import (
    COMMANDS,
    COMMANDS_TX,
    DEAD_LETTERS,
    FOR_EVER_MS,
    HISTORY,
    HOUR_MS,
    KAFKA_PARTITIONS,
    META,
    PUBLISHED,
    REPLIES,
    TASKS,
    TOPICS,
    WORKERS,
    Topic,
)
from orchestrator.protocol.records import FEATURE_LEVEL, NAMESPACE_KEY, Namespace

Role = Literal["coordinator", "worker", "view", "client"]

MAX_MESSAGE_BYTES = MAX_RECORD_BYTES + 1_024
"""What a topic takes at least: our largest record, and its frame. Kafka's own default is a little less."""

SEGMENT_BYTES = 128 * 1024 * 1024
"""What is in the last segment is neither compacted nor deleted; by default that is up to 1 GB a partition."""

TOMBSTONES_MS = 7 * 24 * HOUR_MS
"""A view that was away for less can go on where it was; one that was away for longer is rebuilt."""

REPLICAS = 3
"""Of each topic, where the cluster has so many brokers: one may be lost while another is restarted."""

PERMANENT = (COMMANDS, COMMANDS_TX, HISTORY, PUBLISHED)
"""Topics that are never made anew once the namespace exists: what they held would be missing, unnoticed."""

_READ, _WRITE = frozenset({"READ"}), frozenset({"WRITE"})

NEEDS: Mapping[Role, Mapping[str, frozenset[str]]] = {
    "coordinator": {
        COMMANDS: _READ | _WRITE | {"DELETE"},  # consumed commands are deleted
        COMMANDS_TX: _READ | {"DELETE"},
        HISTORY: _READ | _WRITE,
        TASKS: _WRITE,
        REPLIES: _WRITE,
        WORKERS: _READ | _WRITE,
        DEAD_LETTERS: _WRITE,
        META: _READ | _WRITE,
        PUBLISHED: _READ | _WRITE,
    },
    "worker": {TASKS: _READ, COMMANDS: _WRITE, WORKERS: _READ | _WRITE, DEAD_LETTERS: _WRITE, META: _READ},
    "view": {  # which is a gateway for clients and workers that speak HTTP, too
        HISTORY: _READ,
        WORKERS: _READ | _WRITE,
        DEAD_LETTERS: _READ | _WRITE,
        COMMANDS: _WRITE,
        REPLIES: _READ,
        TASKS: _READ,
        META: _READ,
    },
    "client": {COMMANDS: _WRITE, REPLIES: _READ, META: _READ},
}
"""What each role does with which topic; a topic that is not named is none of its business."""


class TopicReport(NamedTuple):
    """One topic, by its full name. ``records`` counts offsets; ``remark`` says what is not as expected."""

    name: str
    state: Literal["created", "exists", "missing", "wrong"]
    partitions: int = 0
    replicas: int = 0
    records: int = 0
    remark: str = ""


def create(
    settings: KafkaSettings,
    *,
    partitions: int | None = None,
    replicas: int | None = None,
    registry: str = "",
) -> list[TopicReport]:
    """Make what is missing of a namespace; repeated, it does nothing.

    Args:
        settings: which namespace, on which cluster.
        partitions: of commands and history, for ever; default 16, or what the namespace has.
        replicas: of each topic; default 3, or the number of brokers if there are fewer.
        registry: the address of a schema registry that is to know our schemas; processes that begin from
            now on write its ids.

    Raises:
        ConfigError: the namespace exists with another number of partitions, lost a topic that cannot be
            made anew, or the cluster refuses.
        Unavailable: no answer came in time.
    """
    cluster = Cluster(settings)
    there = cluster.topics([settings.topic(name) for name in TOPICS])
    known = namespace_of(cluster, settings) if settings.topic(META) in there else None
    count = _count(settings, known, there, partitions)
    if known is not None:
        _raise_first(topic_problems(settings, known, cluster.cluster_id, there, PERMANENT))
    copies = replicas or min(REPLICAS, cluster.brokers)
    missing = [topic for topic in TOPICS.values() if settings.topic(topic.name) not in there]
    made = cluster.create(
        Wanted(settings.topic(topic.name), topic.count(count), copies, config_of(topic, copies))
        for topic in missing
    )
    found = cluster.topics([settings.topic(name) for name in TOPICS])
    namespace = known or Namespace(
        partitions=count,
        cluster_id=cluster.cluster_id,
        topic_ids={name: found[settings.topic(name)].topic_id for name in (COMMANDS, HISTORY)},
        feature_level=FEATURE_LEVEL,
        time_ms=int(time.time() * 1_000),
    )
    # Somebody may have made some of them at the same time, in another way: what counts is what is there.
    _raise_first(topic_problems(settings, namespace, cluster.cluster_id, found, TOPICS))
    if registry:
        ids = {**namespace.schema_ids, **register(registry, settings)}
        namespace = msgspec.structs.replace(namespace, schema_ids=ids)
    if namespace != known:
        cluster.write(settings.topic(META), NAMESPACE_KEY, msgspec.json.encode(namespace))
    return list(_reports(cluster, settings, found, made))


def delete(settings: KafkaSettings) -> None:
    """Delete a namespace with all that is in it; raises ``ConfigError`` or ``Unavailable``."""
    cluster = Cluster(settings)
    cluster.delete(cluster.topics([settings.topic(name) for name in TOPICS]))


def survey(settings: KafkaSettings) -> list[TopicReport]:
    """The topics of a namespace as they are; raises ``ConfigError`` or ``Unavailable``."""
    cluster = Cluster(settings)
    return list(_reports(cluster, settings, cluster.topics([settings.topic(name) for name in TOPICS]), ()))


def check(settings: KafkaSettings, role: Role) -> Namespace:
    """Whether a role can work here, said before it begins; returns what the namespace was made as.

    Takes about 0.2 s, at most some 20 s. From here on this process writes the namespace's ids of schemas.

    Raises:
        ConfigError: topics are missing, were made in another way or anew, or an ACL is missing; or this
            process works for a namespace with other ids of schemas already.
        Unavailable: there is no broker, or it does not answer in time.
    """
    cluster = Cluster(settings)
    found = cluster.topics([settings.topic(name) for name in NEEDS[role]])
    namespace = namespace_of(cluster, settings) if settings.topic(META) in found else None
    if namespace is None:
        raise no_namespace(settings)
    _raise_first(topic_problems(settings, namespace, cluster.cluster_id, found, NEEDS[role]))
    _raise_first(right_problems(settings, cluster, found, role))
    _raise_first(setting_problems(settings, cluster, found, role))
    try:
        avro.use_ids(namespace.schema_ids, namespace.log_id)
    except ValueError as error:
        raise ConfigError(
            f"the namespace {settings.namespace!r} has ids of a schema registry of its own, and {error}; use "
            f"another process for it"
        ) from error
    return namespace


def no_namespace(settings: KafkaSettings) -> ConfigError:
    """There is none of that name."""
    return ConfigError(
        f"there is no namespace {settings.namespace!r} on the cluster at {settings.bootstrap}; make it "
        f"with 'orchestrator topic create', or name another one with --namespace"
    )


def _raise_first(problems: Iterable[ConfigError]) -> None:
    for problem in problems:
        raise problem


def right_problems(
    settings: KafkaSettings, cluster: Cluster, found: Mapping[str, Found], role: Role
) -> Iterator[ConfigError]:
    """Which rights a role lacks, on the topics that were found and on its group, as far as a cluster says."""
    for name, operations in NEEDS[role].items():
        allowed = found[settings.topic(name)].allowed if settings.topic(name) in found else frozenset()
        lacking = sorted(operations - allowed) if allowed else []  # a broker may not say what is allowed
        if lacking:
            yield ConfigError(
                f"a {role} needs {' and '.join(lacking)} on {settings.topic(name)}, and the cluster allows "
                f"only {', '.join(sorted(allowed))}; add an ACL for the prefix '{settings.namespace}.'"
            )
    if role != "coordinator":
        return
    group = settings.group
    rights = cluster.rights_on_group(group)
    if rights is not None and "READ" not in rights:
        yield ConfigError(
            f"a coordinator needs READ on the group {group}, and the cluster allows "
            f"{'only ' + ', '.join(sorted(rights)) if rights else 'nothing'}; add an ACL for the group"
        )


def setting_problems(
    settings: KafkaSettings, cluster: Cluster, found: Mapping[str, Found], role: Role
) -> Iterator[ConfigError]:
    """Which topics of a role, of those that were found, would lose records or refuse them."""
    names = [name for name in NEEDS[role] if settings.topic(name) in found]
    configs = cluster.settings_of([settings.topic(name) for name in names])
    for name in names:
        # Others write small records: one that is too large is refused alone, and says so.
        sizes = role == "coordinator"
        if remark := _remark(TOPICS[name], configs[settings.topic(name)], sizes=sizes):
            yield ConfigError(
                f"the topic {settings.topic(name)} would lose or refuse records: {remark}; set it right"
            )


def config_of(topic: Topic, replicas: int) -> dict[str, str]:
    """The settings of a topic on Kafka."""
    limited = topic.retention_ms != FOR_EVER_MS
    settings = {
        "cleanup.policy": ",".join(
            ["compact"] * topic.compacted + ["delete"] * (limited or not topic.compacted)
        ),
        "retention.ms": str(topic.retention_ms),
        "retention.bytes": "-1",
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
        "segment.bytes": str(SEGMENT_BYTES),
        "min.insync.replicas": str(min(2, max(1, replicas - 1))),
    }
    if limited:
        settings["segment.ms"] = str(max(HOUR_MS // 6, topic.retention_ms // 6))
    if topic.compacted:
        settings["min.compaction.lag.ms"] = str(topic.compaction_lag_ms)
        settings["delete.retention.ms"] = str(TOMBSTONES_MS)
    return settings


_PROMISES = ("cleanup.policy", "message.timestamp.type")
"""Settings that operators may not change: with others, records are lost or times mean something else."""


def _remark(topic: Topic, found: Mapping[str, str], *, sizes: bool = True) -> str:
    """What is wrong with the settings of a topic; empty if all is well or they cannot be seen.

    ``sizes``: look at how large a record may be, too.
    """
    wanted = config_of(topic, 1)
    names = (
        _PROMISES if topic.compacted or topic.retention_ms != FOR_EVER_MS else (*_PROMISES, "retention.ms")
    )
    wrong = [
        f"{name} is {found[name]}, expected {wanted[name]}"
        for name in names
        if name in found and set(found[name].split(",")) != set(wanted[name].split(","))
    ]
    limit = found.get("max.message.bytes", wanted["max.message.bytes"])
    if sizes and int(limit) < MAX_MESSAGE_BYTES:
        wrong.append(f"max.message.bytes is {limit}, expected at least {MAX_MESSAGE_BYTES}")
    return "; ".join(wrong)


def namespace_of(cluster: Cluster, settings: KafkaSettings) -> Namespace | None:
    """As what a namespace was made; raises ``ConfigError`` if this version is too old for it."""
    data = cluster.read(settings.topic(META)).get(NAMESPACE_KEY)
    if data is None:
        return None
    try:
        namespace = msgspec.json.decode(data, type=Namespace)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"the record 'namespace' on {settings.topic(META)} is not understood: {error}; it is written by "
            f"'orchestrator topic create' alone"
        ) from error
    if namespace.feature_level > FEATURE_LEVEL:
        raise ConfigError(
            f"the namespace {settings.namespace!r} has feature level {namespace.feature_level}, and this "
            f"version knows those up to {FEATURE_LEVEL}; install a newer version"
        )
    return namespace


def _count(
    settings: KafkaSettings, known: Namespace | None, there: Mapping[str, Found], asked: int | None
) -> int:
    """The number of partitions of commands and history."""
    commands = there.get(settings.topic(COMMANDS))
    count = known.partitions if known else commands.partitions if commands else asked or KAFKA_PARTITIONS
    if asked not in (None, count):
        raise ConfigError(
            f"the namespace {settings.namespace!r} was made with {count} partitions, not {asked}; the number "
            f"cannot change, because ids are assigned to partitions by it: leave it out, or make another "
            f"namespace"
        )
    return count


def topic_problems(
    settings: KafkaSettings,
    namespace: Namespace,
    cluster_id: str,
    found: Mapping[str, Found],
    names: Iterable[str],
) -> Iterator[ConfigError]:
    """Which topics are not the ones that the namespace was made with; one for the wrong cluster alone."""
    if namespace.cluster_id != cluster_id:
        yield ConfigError(
            f"the namespace {settings.namespace!r} was made on the cluster {namespace.cluster_id}, and the "
            f"one at {settings.bootstrap} is {cluster_id}; copied topics are no namespace: check the "
            f"address"
        )
        return
    for name in names:
        full = settings.topic(name)
        if full not in found:
            yield ConfigError(
                f"the topic {full} is missing, though the namespace {settings.namespace!r} exists; "
                + (
                    "what it held is lost: restore it, or delete all topics of the namespace and begin anew"
                    if name in PERMANENT
                    else "make it with 'orchestrator topic create'"
                )
            )
            continue
        expected = TOPICS[name].count(namespace.partitions)
        if found[full].partitions != expected:
            yield ConfigError(
                f"the topic {full} has {found[full].partitions} partitions, expected {expected}, as the "
                f"namespace {settings.namespace!r} was made; the number cannot change: make another namespace"
            )
        made_as = namespace.topic_ids.get(name, found[full].topic_id)
        if found[full].topic_id != made_as:
            yield ConfigError(
                f"the topic {full} was deleted and made again (its id is {found[full].topic_id}, expected "
                f"{made_as}); what it held is lost: delete all topics of the namespace and begin anew"
            )


def _reports(
    cluster: Cluster, settings: KafkaSettings, found: Mapping[str, Found], made: Collection[str]
) -> Iterator[TopicReport]:
    configs = cluster.settings_of(found)
    records = cluster.records({name: topic.partitions for name, topic in found.items()})
    for topic in TOPICS.values():
        name = settings.topic(topic.name)
        if name not in found:
            yield TopicReport(name, "missing")
            continue
        remark = _remark(topic, configs[name])
        state: Literal["created", "exists", "wrong"]
        state = "wrong" if remark else "created" if name in made else "exists"
        yield TopicReport(name, state, found[name].partitions, found[name].replicas, records[name], remark)
