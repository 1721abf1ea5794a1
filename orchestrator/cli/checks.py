"""What ``orchestrator doctor`` looks at: Kafka, an engine or a view over HTTP, and whoever beats there."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import msgspec
from confluent_kafka import libversion

from orchestrator import config
from orchestrator.cli.exits import CommandUsage
from orchestrator.cli.kafka import Cluster
from orchestrator.codec.people import ranges, span_of
from orchestrator.coordinator.clock_check import MAX_SKEW_MS
from orchestrator.errors import OrchestratorError, Unavailable
from orchestrator.log.findings import Finding, failed, ok, warning
from orchestrator.log.kafka import checkup
from orchestrator.log.wire import PREFIX
from orchestrator.protocol.records import FEATURE_LEVEL
from orchestrator.protocol.views import CoordinatorSeen, RunCounts, ViewStatus, WorkerSeen
from orchestrator.telemetry.versions import version, versions
from orchestrator.view.roster import Roster

SILENT_MS = 5_000
"""Members beat once per second; who was silent for so long may be dead."""

TIMEOUT_S = 10.0
"""An engine that needs longer for a count is in trouble."""


def findings(address: str, log: str, namespace: str, kafka_config: Path | None) -> Iterator[Finding]:
    """Everything there is to say, as it is found; for the arguments see the command."""
    if address.startswith("kafka://"):
        address, log = "", log or address
    log = log or ("" if address else os.environ.get(config.LOG_VARIABLE, ""))
    if not log and (namespace or kafka_config is not None):
        raise CommandUsage("--namespace and --kafka-config are for Kafka; name its brokers with --log")
    beside = {**versions(), "librdkafka": libversion()[0]}
    libraries = ", ".join(f"{name} {number}" for name, number in beside.items())
    yield ok("versions", f"orchestrator {version()} with {libraries}")
    if log:
        yield from _kafka(Cluster(log, namespace, kafka_config))
    if address or not log:
        yield from _http(address or os.environ.get(config.ADDRESS_VARIABLE) or config.ADDRESS)


# ----------------------------------------------------------------------------------------- Kafka


def _kafka(cluster: Cluster) -> Iterator[Finding]:
    settings = cluster.settings()
    wrong = False
    for finding in checkup.examine(settings):
        wrong = wrong or finding.state == "failed"
        yield finding
    if wrong:
        return  # who cannot read the topics hears nobody
    try:
        heard = checkup.listen(settings)
    except OrchestratorError as error:
        yield failed("members", error)
        return
    yield clock(heard.ahead_ms, "the broker's")
    now_ms = time.time_ns() // 1_000_000 - (heard.ahead_ms or 0)
    roster = Roster()
    for at_ms, beat in heard.beats:
        roster.take(beat, at_ms)
    yield from members(roster.coordinators(now_ms), roster.workers(now_ms), heard.partitions)


def clock(ahead_ms: int | None, whose: str) -> Finding:
    """How far this machine's clock is ahead, if that is known; within what coordinators take for right."""
    if ahead_ms is None:
        return warning("clock", "nobody beats, so there is nothing to hold it against", "start a coordinator")
    found = f"{span_of(abs(ahead_ms))} {'ahead of' if ahead_ms >= 0 else 'behind'} {whose}"
    if abs(ahead_ms) <= MAX_SKEW_MS:
        return ok("clock", found)
    return Finding("failed", "clock", found, "set this machine's clock, or the other's; use NTP")


# ------------------------------------------------------------------------------------------ HTTP


def _http(address: str) -> Iterator[Finding]:
    if not address.startswith(("http://", "https://")):
        raise CommandUsage(f"the address {address!r} is not understood; expected one like {config.ADDRESS}")
    with httpx.Client(base_url=address.rstrip("/"), timeout=TIMEOUT_S, trust_env=False) as http:
        try:
            yield from _look(http, address)
        except (httpx.HTTPError, httpx.InvalidURL, msgspec.MsgspecError) as error:
            unavailable = Unavailable(
                f"{address} does not answer as an engine or a view does: {error!r}; start one with "
                f"'orchestrator dev' or 'orchestrator view', or name another with --address"
            )
            yield failed("address", unavailable)


def _look(http: httpx.Client, address: str) -> Iterator[Finding]:
    live, ready = http.get("/live"), http.get("/ready")
    said = msgspec.json.decode(http.get(f"{PREFIX}/cluster").content, type=ViewStatus)
    yield ok("address", f"{address} answers within {span_of(round(live.elapsed.total_seconds() * 1_000))}")
    for what, answer, advice in (("live", live, "restart it"), ("ready", ready, "wait, or do what it says")):
        reason = answer.text.strip()
        yield ok(what, "yes") if answer.is_success else Finding("failed", what, reason, advice)
    if date := live.headers.get("date"):
        ahead_ms = round(time.time() * 1_000 - parsedate_to_datetime(date).timestamp() * 1_000)
        yield clock(max(0, ahead_ms - 1_000) if ahead_ms > 0 else ahead_ms, "the engine's")
    lag = sum(one.lag_records for one in said.partitions)
    troubled = [
        warning("partitions", f"{one.partition}: {one.trouble}", "see the log of the view")
        for one in said.partitions
        if one.trouble
    ]
    if said.trouble:
        yield Finding("failed", "log", said.trouble, "look at the brokers: 'orchestrator doctor --log …'")
    elif not troubled:  # while the log is away, nobody knows how much is to be read
        yield ok("partitions", f"{len(said.partitions)}, {lag:,} records of history to be read")
    yield from troubled
    if said.dead_letters:
        yield warning(
            "dead letters",
            f"{said.dead_letters:,} records could not be used",
            f"GET {PREFIX}/dead-letters shows them",
        )
    else:
        yield ok("dead letters", "none")
    yield from members(said.coordinators, said.workers, len(said.partitions))
    query = {"q": 'ExecutionStatus = "Blocked"'}
    counted = http.get(f"{PREFIX}/workflow-counts", params=query).content
    blocked = msgspec.json.decode(counted, type=RunCounts).runs
    if blocked:
        yield warning(
            "blocked runs", f"{blocked:,}", "'orchestrator stuck' shows them; mend the code, and deploy it"
        )
    else:
        yield ok("blocked runs", "none")


# --------------------------------------------------------------------------------------- members


def members(
    coordinators: Sequence[CoordinatorSeen], workers: Sequence[WorkerSeen], partitions: int
) -> Iterator[Finding]:
    """Who lives, whether all partitions are owned, who is silent, and whether all run the same version."""
    yield from _presence(coordinators, workers)
    owned = {number for seen in coordinators for number in seen.beat.partitions}
    if coordinators and (missing := sorted(set(range(partitions)) - owned)):
        yield warning(
            "owners",
            f"nobody owns the partitions {ranges(missing)}",
            "wait some seconds; then ask each coordinator's /ready what it waits for",
        )
    heard = [
        ("coordinator", seen.beat.identity, seen.beat.coordinator, seen.silent_ms) for seen in coordinators
    ]
    heard += [("worker", seen.beat.identity, seen.beat.worker, seen.silent_ms) for seen in workers]
    for role, identity, name, silent_ms in heard:
        if silent_ms > SILENT_MS:
            yield warning(
                "silence",
                f"the {role} {identity or name} was last heard {span_of(silent_ms)} ago",
                "see whether it runs; if it was killed, others have its work",
            )
    levels = {seen.beat.feature_level for seen in coordinators} - {FEATURE_LEVEL}
    theirs = {*(seen.beat.version for seen in coordinators), *(seen.beat.version for seen in workers)}
    found = {version(), *theirs} - {""}
    if len(found) > 1 or levels:
        about = f", and of feature level {min(levels)}" if levels else ""
        yield warning(
            "mixed versions",
            f"{', '.join(sorted(found))} run side by side{about}",
            "that is fine during a deploy; finish it",
        )


def _presence(coordinators: Sequence[CoordinatorSeen], workers: Sequence[WorkerSeen]) -> Iterator[Finding]:
    if coordinators:
        yield ok("coordinators", f"{len(coordinators)}")
    else:
        yield warning("coordinators", "none beats, so nothing is decided", "start 'orchestrator coordinator'")
    if workers:
        slots = sum(seen.beat.slots for seen in workers)
        yield ok("workers", f"{len(workers)}, with {slots:,} slots")
    else:
        yield warning("workers", "none beats, so activities wait", "start 'orchestrator worker'")
