"""What only Kafka has: brokers that die and hang, refusals of batches, foreign producers, transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from orchestrator.errors import LogError, Unavailable
from orchestrator.log.kafka.admin import config_of
from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.group import generation_of
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.port import Appender, Polled
from orchestrator.log.topics import TOPICS
from tests.conformance.log.harness import PATIENCE_S, read_all
from tests.kafka.broker import USERS, Broker
from tests.kafka.shared import Shared

pytestmark = pytest.mark.kafka

PARTITIONS = 2


class Setting:
    """A namespace with small topics, its members, and what they were told."""

    def __init__(self, bootstrap: str, namespace: str) -> None:
        self.settings = KafkaSettings(bootstrap, namespace)
        self.admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
        self.members: list[KafkaLog] = []
        self.outcomes: dict[object, str] = {}
        self.errors: dict[object, str] = {}
        self.order: list[object] = []

    def make_topics(self, *, without: str = "", limits: dict[str, int] | None = None) -> Setting:
        topics = []
        for topic in TOPICS.values():
            config = config_of(topic, 1)
            if topic.name in (limits or {}):
                config["max.message.bytes"] = str((limits or {})[topic.name])
            count = min(PARTITIONS, topic.count(PARTITIONS))
            if topic.name != without:
                topics.append(NewTopic(self.settings.topic(topic.name), count, 1, config=config))
        for made in self.admin.create_topics(topics).values():
            made.result(PATIENCE_S)
        names = {topic.topic for topic in topics}
        wait_until(lambda: names <= self.admin.list_topics().topics.keys())
        return self

    def member(self) -> KafkaLog:
        self.members.append(KafkaLog(self.settings, member="test"))
        return self.members[-1]

    def poll(self, member: KafkaLog, timeout_s: float = 0.05) -> Polled:
        polled = member.poll(timeout_s)
        for delivery in polled.deliveries:
            self.outcomes[delivery.token] = delivery.outcome.value
            self.errors[delivery.token] = delivery.error
            self.order.append(delivery.token)
        return polled

    def settle(self, member: KafkaLog, *tokens: object) -> None:
        """Poll until all tokens have an outcome."""
        wait_until(lambda: bool(self.poll(member)) and self.outcomes.keys() >= set(tokens))

    def close(self) -> None:
        for member in self.members:
            member.close()


def login_of(user: str) -> dict[str, str]:
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": USERS[user],
    }


def rights_on(topic: str, admin: AdminClient) -> list[AclOperation]:
    """What its user may do: a broker takes a while to know of new rights."""
    asked = admin.describe_topics(TopicCollection([topic]), include_authorized_operations=True)
    return list(asked[topic].result(PATIENCE_S).authorized_operations or ())


def wait_until(holds: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s, "it does not come to that"


def claimed(setting: Setting, member: KafkaLog, partition: int) -> Appender:
    """An ordered appender whose first record has landed, as a claim does."""
    appender = member.appender(ordered=True)
    appender.append("history", partition, b"claim", b"", token=("claim", partition, id(appender)))
    setting.settle(member, ("claim", partition, id(appender)))
    return appender


@pytest.fixture
def setting(kafka: Shared, namespace: str) -> Iterator[Setting]:
    made = Setting(kafka.bootstrap, namespace)
    yield made
    made.close()


@pytest.fixture
def victim(make_broker: Callable[..., Broker]) -> Broker:
    """A broker that the test may kill and pause."""
    return make_broker()


@pytest.fixture
def fragile(victim: Broker, namespace: str) -> Iterator[Setting]:
    made = Setting(victim.bootstrap, namespace).make_topics()
    yield made
    made.close()


def test_the_generation_is_where_we_read_it(setting: Setting) -> None:
    """A new version of librdkafka may move it: then this fails, and not a claim."""
    setting.make_topics()
    consumer = Clients(setting.settings, "test").group_member(lambda error, places: None)
    assert generation_of(consumer.consumer_group_metadata()) == -1
    consumer.close()
    generations = [joined(setting.member()) for _ in range(3)]
    assert generations[0] == 1
    assert generations == sorted(set(generations))


def joined(member: KafkaLog) -> int:
    """Join, and leave; returns the generation in between."""
    member.join()
    found: list[int] = []
    wait_until(lambda: bool(found.extend(m.generation for m in member.poll(0.05).memberships) or found))
    member.close()
    return found[0]


class TestRefusals:
    def test_a_denied_topic_harms_nobody_else(
        self, setting: Setting, kafka: Shared, caplog: pytest.LogCaptureFixture
    ) -> None:
        setting.make_topics()
        name = setting.settings.topic("tasks")
        kind, pattern = ResourceType.TOPIC, ResourcePatternType.LITERAL
        describe = AclBinding(
            kind, name, pattern, "User:alice", "*", AclOperation.DESCRIBE, AclPermissionType.ALLOW
        )
        for allowed in setting.admin.create_acls([describe]).values():
            allowed.result(PATIENCE_S)
        setting.settings = KafkaSettings(
            kafka.secured_bootstrap, setting.settings.namespace, login_of("alice")
        )
        alice = AdminClient(setting.settings.client(log_level=0))
        wait_until(lambda: AclOperation.WRITE not in rights_on(name, alice))
        member = setting.member()
        appender = member.appender(ordered=False)
        for n in range(101):
            appender.append("tasks" if n == 50 else "replies", 0, b"k", b"v", token=n)
        setting.settle(member, *range(101))
        assert [n for n, outcome in setting.outcomes.items() if outcome != "delivered"] == [50]
        assert setting.outcomes[50] == "refused"
        assert "authorization failed" in setting.errors[50]
        assert "WRITE" in member.trouble()
        assert caplog.text.count("authorization failed") == 1

    def test_a_wrong_password_is_said_once(
        self, setting: Setting, kafka: Shared, caplog: pytest.LogCaptureFixture
    ) -> None:
        setting.settings = KafkaSettings(
            kafka.secured_bootstrap, "any", login_of("alice") | {"sasl.password": "wrong"}
        )
        member = setting.member()
        wait_until(lambda: bool(member.poll(0.05)) and "sasl.password" in member.trouble())
        member.poll(1.5)
        assert caplog.text.count("check sasl.username") == 1

    def test_a_missing_topic_harms_nobody_else(self, setting: Setting) -> None:
        member = setting.make_topics(without="tasks").member()
        appender = member.appender(ordered=False)
        for n in range(101):
            topic, partition = ("tasks", 0) if n == 50 else ("replies", n % PARTITIONS)
            appender.append(topic, partition, b"k", b"v", token=n)
        setting.settle(member, *range(101))
        refused = [n for n, outcome in setting.outcomes.items() if outcome != "delivered"]
        assert refused == [50]
        assert "orchestrator topic create" in setting.errors[50]

    def test_a_record_above_the_limit_of_its_topic_harms_nobody_in_its_batch(self, setting: Setting) -> None:
        """The broker refuses the batch as a whole: the others are sent again, each alone."""
        member = setting.make_topics(limits={"replies": 20_000}).member()
        appender = member.appender(ordered=False)
        for n in range(101):
            appender.append("replies", 0, b"%d" % n, bytes(30_000) if n == 50 else b"v", token=n)
        setting.settle(member, *range(101))
        assert [n for n, outcome in setting.outcomes.items() if outcome != "delivered"] == [50]
        keys = sorted(int(record.key) for record in read_all(member, "replies"))
        assert keys == [n for n in range(101) if n != 50]

    def test_a_refused_record_ends_all_that_share_its_history_producer(self, setting: Setting) -> None:
        """Gapless: behind it nothing lands, and each partition claims anew, with a fresh producer."""
        member = setting.make_topics(limits={"history": 20_000}).member()
        appenders = [claimed(setting, member, partition) for partition in range(PARTITIONS)]
        for token, value in (("large", bytes(30_000)), ("behind", b"v")):
            appenders[0].append("history", 0, token.encode(), value, token=token)
        setting.settle(member, "large", "behind")
        assert setting.outcomes["large"] == "refused"
        assert setting.outcomes["behind"] != "delivered"
        appenders[1].append("history", 1, b"neighbour", b"v", token="neighbour")
        setting.settle(member, "neighbour")
        assert setting.outcomes["neighbour"] == "unknown"
        for partition, appender in enumerate(appenders):
            appender.abandon()
            again = claimed(setting, member, partition)
            again.append("history", partition, b"later", b"v", token=partition)
        setting.settle(member, *range(PARTITIONS))
        for partition in range(PARTITIONS):
            keys = [record.key for record in read_all(member, "history", partition)]
            assert keys == [b"claim", b"claim", b"later"]

    def test_an_incident_on_one_partition_moves_only_that_one(self, setting: Setting) -> None:
        member = setting.make_topics().member()
        first, second = (claimed(setting, member, partition) for partition in range(PARTITIONS))
        first.append("history", 0, b"open", b"v", token="open")
        member.poll(0)
        first.abandon()
        again = claimed(setting, member, 0)
        second.append("history", 1, b"undisturbed", b"v", token="undisturbed")
        again.append("history", 0, b"again", b"v", token="again")
        setting.settle(member, "undisturbed", "again")
        assert setting.outcomes["undisturbed"] == setting.outcomes["again"] == "delivered"
        assert "open" not in setting.outcomes


@pytest.mark.timeout(300)  # a broker starts in seconds, or in a minute on a machine that does much else
class TestBrokerAway:
    def test_what_was_under_way_lands_in_order_after_a_kill(self, fragile: Setting, victim: Broker) -> None:
        member = fragile.member()
        member.seek("history", 0, 0)
        appender = claimed(fragile, member, 0)
        outgoing = member.appender(ordered=False)
        victim.kill()
        for n in range(20):
            appender.append("history", 0, b"%d" % n, b"v", token=n)
            outgoing.append("replies", 0, b"%d" % n, b"v", token=("reply", n))
            fragile.poll(member, 0.01)
        wait_until(lambda: bool(fragile.poll(member)) and bool(member.trouble()))
        assert victim.bootstrap in member.trouble()
        assert "does not answer" in member.trouble()
        before_s = time.monotonic()
        assert member.poll(0.3) == Polled([], [], [])
        assert time.monotonic() - before_s >= 0.3, "it spins"
        victim.start()
        fragile.settle(member, *range(20), *(("reply", n) for n in range(20)))
        assert {fragile.outcomes[n] for n in range(20)} == {"delivered"}
        assert [token for token in fragile.order if isinstance(token, int)] == list(range(20))
        keys = [record.key for record in read_all(member)]
        assert keys == [b"claim", *(b"%d" % n for n in range(20))]
        assert member.trouble() == ""

    def test_records_of_an_abandoned_appender_may_land_late(self, fragile: Setting, victim: Broker) -> None:
        member = fragile.member()
        appender = claimed(fragile, member, 0)
        victim.pause()
        try:
            appender.append("history", 0, b"late", b"v", token="late")
            fragile.poll(member)
            appender.append("history", 0, b"never sent", b"v", token="never sent")
            appender.abandon()
            fragile.poll(member)
        finally:
            victim.resume()
        claimed(fragile, member, 0)
        wait_until(lambda: len(read_all(member)) == 3)
        assert sorted(record.key for record in read_all(member)) == [b"claim", b"claim", b"late"]
        assert fragile.outcomes.keys().isdisjoint({"late", "never sent"})

    def test_a_proof_of_membership_leaves_the_lag_as_it_is_shown(self, fragile: Setting) -> None:
        """Who waits out another's claim follows no commands, and knows no position."""
        member = fragile.member()
        member.join()
        wait_until(lambda: len(fragile.poll(member).memberships) == PARTITIONS)
        commands = fragile.settings.topic("commands")
        group = Clients(fragile.settings, "m").group_member(lambda error, places: None)
        appender = member.appender(ordered=False)
        for _ in range(3):
            appender.append("commands", 0, b"k", b"v")
        member.seek("commands", 0, 0)
        found: list[object] = []

        def all_came() -> bool:
            found.extend(fragile.poll(member).records)
            return len(found) == 3

        wait_until(all_came)
        assert member.confirm_membership(0)
        member.unseek("commands", 0)
        assert member.confirm_membership(0)
        (shown,) = group.committed([TopicPartition(commands, 0)], timeout=PATIENCE_S)
        assert shown.offset == 3
        group.close()

    def test_nothing_waits_for_ever_while_the_broker_hangs(self, fragile: Setting, victim: Broker) -> None:
        member = fragile.member()
        member.join()
        wait_until(lambda: len(fragile.poll(member).memberships) == PARTITIONS)
        assert member.confirm_membership(0)
        assert member.end("history", 0) == 0
        outgoing = member.appender(ordered=False)
        victim.pause()
        try:
            assert not member.confirm_membership(0)
            with pytest.raises(Unavailable, match="the end of"):
                member.end("history", 0)
            with pytest.raises(Unavailable):
                member.read("history", 0, 0, 10)
            member.delete_records("commands", 0, 0)  # it is said, and done another time
            outgoing.append("replies", 0, b"k", b"v")
            wait_until(lambda: bool(fragile.poll(member)) and bool(member.trouble()))
            outgoing.abandon()
            member.close()
        finally:
            victim.resume()

    def test_a_restore_goes_on_where_a_kill_interrupted_it(self, fragile: Setting, victim: Broker) -> None:
        member = fragile.member()
        appender = claimed(fragile, member, 0)
        for n in range(1_000):
            appender.append("history", 0, b"%d" % n, bytes(100), token=n)
        fragile.settle(member, 999)
        records = member.read("history", 0, 0, 100)
        victim.kill()
        victim.start()

        def read_on() -> bool:
            try:
                records.extend(member.read("history", 0, records[-1].offset + 1, 100))
            except Unavailable:
                return False
            return len(records) == 1_001

        wait_until(read_on)
        assert [record.key for record in records[1:]] == [b"%d" % n for n in range(1_000)]


class TestReading:
    def test_foreign_records_lack_what_ours_have(self, setting: Setting) -> None:
        member = setting.make_topics().member()
        foreign = Producer({"bootstrap.servers": setting.settings.bootstrap})
        foreign.produce(setting.settings.topic("commands"), b"v", partition=0, headers=[("h", None)])
        foreign.produce(setting.settings.topic("commands"), b"v", partition=0, timestamp=1)
        assert foreign.flush(PATIENCE_S) == 0
        first, second = read_all(member, "commands")
        assert (first.key, dict(first.headers)) == (b"", {"h": b""})
        assert dict(second.headers) == {}
        assert second.time_ms >= first.time_ms > 1_000_000, "the time is the broker's"

    def test_the_end_is_found_behind_the_marks_of_transactions(self, setting: Setting) -> None:
        member = setting.make_topics().member()
        name = setting.settings.topic("commands")
        foreign = Producer({"bootstrap.servers": setting.settings.bootstrap, "transactional.id": name})
        foreign.init_transactions(PATIENCE_S)
        for _ in range(3):
            foreign.begin_transaction()
            foreign.produce(name, b"v", b"k", partition=0)
            foreign.commit_transaction(PATIENCE_S)
        member.seek("commands", 0, 0)
        followed: list[int] = []
        wait_until(lambda: followed.extend(r.offset for r in member.poll(0.05).records) or len(followed) == 3)
        assert followed == [record.offset for record in read_all(member, "commands")] == [0, 2, 4]
        assert member.end("commands", 0) == 6
        assert member.read("commands", 0, 5, 10) == []

    def test_an_offset_beyond_the_end_is_never_replaced_in_silence(self, setting: Setting) -> None:
        member = setting.make_topics().member()
        claimed(setting, member, 0)
        member.seek("history", 0, 500)
        with pytest.raises(LogError, match="from offset 500 on, and ends at 1"):
            wait_until(lambda: bool(member.poll(0.05).records))

    def test_a_position_that_was_deleted_below_its_reader_moves_to_the_start(self, setting: Setting) -> None:
        member = setting.make_topics().member()
        appender = member.appender(ordered=True)
        for n in range(10):
            appender.append("commands", 0, b"%d" % n, b"v", token=n)
        setting.settle(member, *range(10))
        member.delete_records("commands", 0, 6)
        member.seek("commands", 0, 2)
        keys: list[bytes] = []
        wait_until(lambda: keys.extend(r.key for r in member.poll(0.05).records) or len(keys) == 4)
        assert keys == [b"6", b"7", b"8", b"9"]
        assert [record.key for record in member.read("commands", 0, 2, 10)] == keys

    def test_slices_of_many_partitions_in_turn(self, setting: Setting) -> None:
        member = setting.make_topics().member()
        appender = member.appender(ordered=True)
        for n in range(2_000):
            appender.append("history", n % PARTITIONS, b"%d" % n, bytes(50), token=n)
        setting.settle(member, 1_998, 1_999)
        found: list[list[int]] = [[] for _ in range(PARTITIONS)]
        offsets = [0] * PARTITIONS
        reading = set(range(PARTITIONS))
        while reading:
            for partition in sorted(reading):
                records = member.read("history", partition, offsets[partition], 70)
                found[partition] += [int(record.key) for record in records]
                if records:
                    offsets[partition] = records[-1].offset + 1
                else:
                    reading.discard(partition)
        assert found == [list(range(partition, 2_000, PARTITIONS)) for partition in range(PARTITIONS)]
