"""``orchestrator topics`` on a real broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.dev_process import command
from tests.kafka.shared import Shared

pytestmark = pytest.mark.kafka


def test_topics_are_made_and_listed(kafka: Shared, namespace: str, tmp_path: Path) -> None:
    where = ("--log", f"kafka://{kafka.bootstrap}", "--namespace", namespace)

    def topics(*arguments: str) -> tuple[str, str]:
        done = command("topics", *arguments, *where, folder=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    missing = json.loads(topics("list", "-o", "json")[0])
    assert {topic["state"] for topic in missing} == {"missing"}

    made, said = topics("create", "--partitions", "2", "--replication-factor", "1")
    assert made.splitlines()[0].split() == ["TOPIC", "STATE", "PARTITIONS", "REPLICAS", "RECORDS"]
    assert made.splitlines()[1].split() == [f"{namespace}.commands", "created", "2", "1"]
    assert said == f"namespace {namespace}: {len(missing)} topics made, 0 were there\n"
    assert topics("create")[1] == f"namespace {namespace}: 0 topics made, {len(missing)} were there\n"
    assert topics("list", "-o", "ids")[0].splitlines() == [topic["name"] for topic in missing]

    refused = command("topics", "create", "--partitions", "3", *where, folder=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: the namespace '{namespace}' was made with 2 partitions, not 3;")


def test_mistakes_are_one_message(kafka: Shared, tmp_path: Path) -> None:
    (tmp_path / "kafka.properties").write_text("linger.msec=5\n")
    log = ("--log", f"kafka://{kafka.bootstrap}")
    table: list[tuple[tuple[str, ...], int, str]] = [
        ((), 1, "which Kafka? Name it with --log or $ORCHESTRATOR_LOG"),
        (("--log", "http://127.0.0.1:9092"), 1, "expected one like 'kafka://127.0.0.1:9092'"),
        ((*log, "--namespace", "a.b"), 1, "letters, digits, - and _"),
        ((*log, "--kafka-config", "nix"), 1, "cannot be read: No such file"),
        ((*log, "--kafka-config", "kafka.properties"), 1, "'linger.msec' is refused: No such configuration"),
        (("--log", "kafka://127.0.0.1:1"), 1, "no Kafka answers at 127.0.0.1:1 within 8 s"),
        ((*log, "--partitions", "0"), 2, "--partitions is 0; at least one is needed"),
        ((*log, "--replication-factor", "0"), 2, "--replication-factor is 0"),
        ((*log, "--replication-factor", "7", "--namespace", "none"), 1, "INVALID_REPLICATION_FACTOR"),
    ]
    for arguments, code, words in table:
        done = command("topics", "create", *arguments, folder=tmp_path)
        assert (done.returncode, done.stdout) == (code, ""), (arguments, done.stderr)
        assert done.stderr.startswith("error: "), (arguments, done.stderr)
        assert words in done.stderr, (arguments, done.stderr)
        assert done.stderr.count("\n") == 1, (arguments, done.stderr)
