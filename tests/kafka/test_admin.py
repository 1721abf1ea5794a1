"""Topics on a real broker: made once, and each way in which they are not as they should be."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from orchestrator.codec.avro import MAX_RECORD_BYTES
from orchestrator.errors import ConfigError, LogError
from orchestrator.log.kafka import admin
from orchestrator.log.kafka.clients import Clients
from orchestrator.log.kafka.cluster import Cluster
from orchestrator.log.kafka.log import KafkaLog
from orchestrator.log.kafka.publisher import KafkaPublishers
from orchestrator.log.kafka.settings import KafkaSettings
from orchestrator.log.port import Outcome
from orchestrator.log.topics import TOPICS
from orchestrator.protocol.records import NAMESPACE_KEY, Namespace
from tests.kafka.broker import USERS
from tests.kafka.shared import Shared

pytestmark = pytest.mark.kafka

ROLES: Sequence[admin.Role] = ("coordinator", "worker", "view", "client")


class Operator:
    """Somebody with Kafka's own tools."""

    def __init__(self, bootstrap: str) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})

    def _done(self, futures: dict[Any, Future[Any]]) -> None:
        for future in futures.values():
            future.result(30)

    def make(self, *topics: str, partitions: int = 1) -> None:
        self._done(self._admin.create_topics([NewTopic(topic, partitions, 1) for topic in topics]))
        _until(lambda: self._see(topics))

    def _see(self, topics: Iterable[str]) -> None:
        if missing := set(topics) - self._admin.list_topics(timeout=30).topics.keys():
            raise ValueError(f"the broker does not know {missing} yet")

    def delete(self, *topics: str) -> None:
        self._done(self._admin.delete_topics(list(topics)))

    def widen(self, topic: str, partitions: int) -> None:
        self._done(self._admin.create_partitions([NewPartitions(topic, partitions)]))

    def configure(self, topic: str, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        self._done(self._admin.incremental_alter_configs([resource]))

    def allow(
        self,
        user: str,
        prefix: str,
        operation: AclOperation,
        kind: ResourceType = ResourceType.TOPIC,
    ) -> None:
        pattern = ResourcePatternType.PREFIXED
        acl = AclBinding(kind, prefix, pattern, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
        self._done(self._admin.create_acls([acl]))


@pytest.fixture
def operator(kafka: Shared) -> Operator:
    return Operator(kafka.bootstrap)


@pytest.fixture(scope="module")
def made(kafka: Shared) -> KafkaSettings:
    """A namespace that no test damages."""
    settings = KafkaSettings(kafka.bootstrap, f"test-{uuid.uuid4().hex[:12]}")
    assert {report.state for report in admin.create(settings, partitions=2)} == {"created"}
    return settings


@pytest.fixture
def own(kafka: Shared, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaSettings]:
    """A namespace for a test that damages it, with fewer partitions, for each costs the broker a while."""
    small = {name: topic._replace(partitions=min(topic.partitions, 1)) for name, topic in TOPICS.items()}
    monkeypatch.setattr(admin, "TOPICS", small)
    settings = KafkaSettings(kafka.bootstrap, namespace)
    admin.create(settings, partitions=1)
    yield settings
    Operator(kafka.bootstrap).delete(
        *Cluster(settings).topics([settings.topic(name) for name in TOPICS]),
    )


def error_of(ask: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as caught:
        ask()
    return str(caught.value)


def test_a_namespace_is_made_once(made: KafkaSettings) -> None:
    again = admin.create(made)
    assert {report.name.removeprefix(f"{made.namespace}."): report.partitions for report in again} == {
        name: topic.count(2) for name, topic in TOPICS.items()
    }
    assert {report.state for report in again} == {"exists"}
    assert {report.remark for report in again} == {""}
    assert [report.records for report in again if report.name.endswith(".meta")] == [1], "written once"


def test_the_topics_have_the_settings_that_were_asked_for(made: KafkaSettings) -> None:
    found = Cluster(made).settings_of([made.topic(name) for name in TOPICS])
    for name, topic in TOPICS.items():
        wanted = admin.config_of(topic, 1)
        assert {key: found[made.topic(name)][key] for key in wanted} == wanted


@pytest.mark.parametrize("role", ROLES)
def test_every_role_may_begin_and_learns_what_the_namespace_was_made_as(
    made: KafkaSettings, role: admin.Role
) -> None:
    namespace = admin.check(made, role)
    assert namespace.partitions == 2
    ids = Cluster(made).topics([made.topic("commands"), made.topic("history")])
    assert namespace.log_id == ".".join(
        [namespace.cluster_id, *(ids[made.topic(name)].topic_id for name in ("commands", "history"))]
    )


def test_the_number_of_partitions_never_changes(made: KafkaSettings) -> None:
    assert "was made with 2 partitions, not 3" in error_of(lambda: admin.create(made, partitions=3))


@pytest.mark.parametrize("role", ROLES)
def test_a_namespace_that_was_never_made(kafka: Shared, namespace: str, role: admin.Role) -> None:
    settings = KafkaSettings(kafka.bootstrap, namespace)
    said = error_of(lambda: admin.check(settings, role))
    assert f"there is no namespace '{namespace}'" in said
    assert "orchestrator topic create" in said
    assert {report.state for report in admin.survey(settings)} == {"missing"}


def test_making_goes_on_where_it_was_interrupted(own: KafkaSettings, operator: Operator) -> None:
    operator.delete(own.topic("meta"), own.topic("tasks"))
    assert "no namespace" in error_of(lambda: admin.check(own, "worker"))
    assert "was made with 1 partitions, not 4" in error_of(lambda: admin.create(own, partitions=4))
    created = {report.name for report in admin.create(own) if report.state == "created"}
    assert created == {own.topic("meta"), own.topic("tasks")}
    admin.check(own, "worker")


def test_what_loses_nothing_is_made_anew_and_what_does_is_not(own: KafkaSettings, operator: Operator) -> None:
    operator.delete(own.topic("dead-letters"))
    said = error_of(lambda: admin.check(own, "view"))
    assert f"{own.topic('dead-letters')} is missing" in said
    assert "orchestrator topic create" in said
    admin.create(own)
    admin.check(own, "view")

    operator.delete(own.topic("history"))
    said = error_of(lambda: admin.check(own, "view"))
    assert "what it held is lost: restore it, or delete all topics" in said
    assert error_of(lambda: admin.create(own)) == said, "and it is not made anew, empty"

    operator.make(own.topic("history"))
    for ask in (lambda: admin.check(own, "view"), lambda: admin.create(own)):
        assert f"{own.topic('history')} was deleted and made again" in error_of(ask)
    assert admin.check(own, "client").partitions == 1, "a client does not look at history"


def test_partitions_that_were_added(own: KafkaSettings, operator: Operator) -> None:
    operator.widen(own.topic("commands"), 3)
    said = error_of(lambda: admin.check(own, "client"))
    assert f"{own.topic('commands')} has 3 partitions, expected 1" in said


def test_settings_under_which_records_are_lost(own: KafkaSettings, operator: Operator) -> None:
    operator.configure(own.topic("history"), "cleanup.policy", "delete")
    operator.configure(own.topic("commands"), "retention.ms", "1000")
    operator.configure(own.topic("tasks"), "retention.ms", "1000")  # which is the operator's to choose
    assert "cleanup.policy is delete, expected compact" in error_of(lambda: admin.check(own, "view"))
    assert "retention.ms is 1000, expected -1" in error_of(lambda: admin.check(own, "client"))
    wrong = {report.name for report in admin.survey(own) if report.state == "wrong"}
    assert wrong == {own.topic("history"), own.topic("commands")}


def test_topics_that_would_refuse_what_is_allowed(own: KafkaSettings, operator: Operator) -> None:
    operator.configure(own.topic("history"), "max.message.bytes", "1048588")  # Kafka's default
    said = error_of(lambda: admin.check(own, "coordinator"))
    assert f"{own.topic('history')} would lose or refuse records" in said
    assert f"max.message.bytes is 1048588, expected at least {admin.MAX_MESSAGE_BYTES}" in said
    operator.configure(own.topic("history"), "max.message.bytes", "4000000")
    admin.check(own, "coordinator")


def test_our_largest_record_is_taken(own: KafkaSettings) -> None:
    member = KafkaLog(own, member="m")
    appender = member.appender(ordered=True)
    headers = {"name": b"value"}
    rest = MAX_RECORD_BYTES - len("key") - len("name") - len(b"value")
    appender.append("history", 0, b"key", os.urandom(rest), headers=headers)
    outcomes: list[Outcome] = []
    while not outcomes:
        outcomes += [delivery.outcome for delivery in member.poll(1).deliveries]
    member.close()
    assert outcomes == [Outcome.DELIVERED]


def test_what_another_version_or_cluster_wrote(own: KafkaSettings) -> None:
    cluster = Cluster(own)
    good = admin.check(own, "client")

    def said_of(value: bytes) -> str:
        cluster.write(own.topic("meta"), NAMESPACE_KEY, value)
        return error_of(lambda: admin.check(own, "client"))

    def changed(**changes: object) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(good, **changes))

    assert "install a newer version" in said_of(changed(feature_level=99))
    assert f"was made on the cluster elsewhere, and the one at {own.bootstrap}" in said_of(
        changed(cluster_id="elsewhere")
    )
    assert "is not understood" in said_of(b"{}")
    known = msgspec.json.decode(changed(), type=dict[str, Any])
    cluster.write(own.topic("meta"), NAMESPACE_KEY, msgspec.json.encode({**known, "later": 1}))
    assert admin.check(own, "client") == good, "what a newer version added is skipped"
    assert isinstance(good, Namespace)


@pytest.fixture
def alice(kafka: Shared, made: KafkaSettings) -> KafkaSettings:
    return login(kafka, made, "alice", USERS["alice"])


def login(kafka: Shared, made: KafkaSettings, user: str, password: str) -> KafkaSettings:
    options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": password,
    }
    return KafkaSettings(kafka.secured_bootstrap, made.namespace, options)


def test_a_wrong_password_is_said_at_once(kafka: Shared, made: KafkaSettings) -> None:
    said = error_of(lambda: admin.check(login(kafka, made, "alice", "hunter2"), "client"))
    assert "refuses the login" in said
    assert "Invalid username or password" in said
    assert "hunter2" not in said


def test_missing_rights_are_named(
    kafka: Shared, made: KafkaSettings, alice: KafkaSettings, operator: Operator
) -> None:
    operator.allow("bob", f"{made.namespace}.", AclOperation.ALL)
    bob = login(kafka, made, "bob", USERS["bob"])
    _until(lambda: admin.check(bob, "coordinator"))
    _until(lambda: error_of(lambda: admin.check(alice, "client")))
    said = error_of(lambda: admin.check(alice, "client"))
    assert "TOPIC_AUTHORIZATION_FAILED" in said
    assert f"prefix '{made.namespace}.'" in said
    operator.allow("alice", f"{made.namespace}.", AclOperation.READ)
    _until(lambda: error_of(lambda: admin.check(alice, "client")).index("needs WRITE on"))
    said = error_of(lambda: admin.check(alice, "coordinator"))
    assert f"a coordinator needs DELETE and WRITE on {made.topic('commands')}" in said
    assert "the cluster allows only DESCRIBE, READ" in said


def test_a_coordinator_may_join_its_group_or_is_told_at_once(
    kafka: Shared, own: KafkaSettings, operator: Operator
) -> None:
    alice = login(kafka, own, "alice", USERS["alice"])
    operator.allow("bob", own.group, AclOperation.READ, ResourceType.GROUP)
    operator.allow("alice", f"{own.namespace}.", AclOperation.ALL)
    _until(lambda: error_of(lambda: admin.check(alice, "coordinator")).index(own.group))
    said = error_of(lambda: admin.check(alice, "coordinator"))
    assert f"a coordinator needs READ on the group {own.group}, and the cluster allows nothing" in said
    admin.check(alice, "view")
    operator.allow("alice", own.group, AclOperation.DESCRIBE, ResourceType.GROUP)
    _until(lambda: error_of(lambda: admin.check(alice, "coordinator")).index("allows only DESCRIBE"))
    operator.allow("alice", own.group, AclOperation.READ, ResourceType.GROUP)
    _until(lambda: admin.check(alice, "coordinator"))


def test_the_right_to_publish_is_named_when_somebody_publishes(
    kafka: Shared, own: KafkaSettings, operator: Operator
) -> None:
    operator.allow("bob", own.publishers, AclOperation.ALL, ResourceType.TRANSACTIONAL_ID)
    publishers = KafkaPublishers(Clients(login(kafka, own, "alice", USERS["alice"]), "m"))

    def open_one() -> None:
        publisher = publishers.publisher(0)
        try:
            publisher.open()
        finally:
            publisher.close()

    def denied() -> str:
        with pytest.raises(LogError) as caught:
            open_one()
        return str(caught.value)

    _until(denied)
    assert f"give this user WRITE and DESCRIBE on the transactional ids {own.publishers}…" in denied()
    operator.allow("alice", f"{own.namespace}.", AclOperation.ALL)
    operator.allow("alice", own.publishers, AclOperation.WRITE, ResourceType.TRANSACTIONAL_ID)
    _until(open_one)
    publishers.close()


def _until(ask: Callable[[], object]) -> None:
    """Rights and topics reach the broker a moment after they were given."""
    for _ in range(100):
        try:
            ask()
        except (ConfigError, LogError, ValueError, pytest.fail.Exception):
            continue
        return
    ask()
