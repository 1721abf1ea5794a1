from __future__ import annotations

import pytest

from orchestrator.log.kafka.admin import config_of
from orchestrator.log.topics import TOPICS
from orchestrator.protocol.records import MAX_PART_BYTES, Namespace

DAY_MS = 86_400_000


def test_what_must_not_be_lost_is_kept_for_ever() -> None:
    policies = {name: config_of(topic, 1)["cleanup.policy"] for name, topic in TOPICS.items()}
    assert policies == {
        "commands": "delete",
        "commands-tx": "delete",
        "history": "compact",
        "tasks": "delete",
        "replies": "delete",
        "workers": "compact,delete",
        "published": "compact",
        "dead-letters": "delete",
        "meta": "compact",
    }
    retention = {name: int(config_of(topic, 1)["retention.ms"]) for name, topic in TOPICS.items()}
    kept = {name for name, time_ms in retention.items() if time_ms == -1}
    assert kept == {"commands", "commands-tx", "history", "published", "meta"}
    assert retention["dead-letters"] == 30 * DAY_MS
    assert {config_of(topic, 1)["retention.bytes"] for topic in TOPICS.values()} == {"-1"}


def test_history_is_not_compacted_before_its_readers_have_seen_it() -> None:
    config = config_of(TOPICS["history"], 1)
    assert int(config["min.compaction.lag.ms"]) == 3_600_000
    assert int(config["delete.retention.ms"]) == 7 * DAY_MS


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_times_are_the_logs_own_and_a_part_of_a_turn_fits(topic: object) -> None:
    config = config_of(topic, 1)  # type: ignore[arg-type]
    assert config["message.timestamp.type"] == "LogAppendTime"
    assert int(config["max.message.bytes"]) > 1.5 * MAX_PART_BYTES


def test_a_limit_of_time_holds_for_what_is_in_the_last_segment_too() -> None:
    for topic in TOPICS.values():
        config = config_of(topic, 1)
        if topic.retention_ms > 0:
            assert int(config["segment.ms"]) <= topic.retention_ms / 6


@pytest.mark.parametrize(("replicas", "in_sync"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_one_broker_may_be_away(replicas: int, in_sync: str) -> None:
    assert config_of(TOPICS["history"], replicas)["min.insync.replicas"] == in_sync


def test_the_id_of_a_log_changes_with_the_cluster_and_with_each_topic() -> None:
    def log_id(cluster: str, **ids: str) -> str:
        made = Namespace(partitions=1, cluster_id=cluster, topic_ids=ids, feature_level=1, time_ms=0)
        return made.log_id

    known = log_id("c", commands="a", history="b")
    assert known == log_id("c", history="b", commands="a")
    others = [
        log_id("d", commands="a", history="b"),
        log_id("c", commands="b", history="b"),
        log_id("c", commands="a", history="a"),
    ]
    assert len({known, *others}) == 4
    assert "/" not in known, "stores may name folders by it"
