"""The brokers of the tests: one that is shared, and such as are killed, paused and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.kafka.broker import Broker, free_ports
from tests.kafka.shared import Shared

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parent.parent.parent


def admin_of(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


def make_topic(bootstrap: str, name: str) -> None:
    admin = admin_of(bootstrap)  # kept until the answer is here: its end ends its requests
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(30)


def write(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
    errors: list[object] = []
    producer.produce(topic, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0
    assert len(errors) == 1
    assert errors[0] is None


def read(bootstrap: str, topic: str) -> bytes | None:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "log_level": 0})
    consumer.assign([TopicPartition(topic, 0, 0)])
    record = consumer.poll(30)
    consumer.close()
    assert record is not None
    return record.value()


def test_what_is_written_is_read(kafka: Shared, namespace: str) -> None:
    make_topic(kafka.bootstrap, f"{namespace}.t")
    write(kafka.bootstrap, f"{namespace}.t", b"x")
    assert read(kafka.bootstrap, f"{namespace}.t") == b"x"


def test_a_broker_is_killed_started_again_and_paused(make_broker: Callable[..., Broker]) -> None:
    broker = make_broker()
    make_topic(broker.bootstrap, "t")
    write(broker.bootstrap, "t", b"x")
    bootstrap = broker.bootstrap
    broker.kill()
    with pytest.raises(KafkaException):
        admin_of(bootstrap).list_topics(timeout=0.5)
    broker.start()
    assert broker.bootstrap == bootstrap
    assert read(bootstrap, "t") == b"x", "it kept its data and port"
    broker.pause()
    with pytest.raises(KafkaException):
        admin_of(bootstrap).list_topics(timeout=0.5)
    broker.resume()
    assert "t" in admin_of(bootstrap).list_topics(timeout=30).topics


USER = """
import os, pathlib, sys
from tests.kafka.shared import shared_broker
with shared_broker(pathlib.Path(sys.argv[1])) as shared:
    print(shared.bootstrap, flush=True)
    sys.stdin.read()
"""


def user_of(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def test_users_in_many_processes_share_one_broker_which_ends_with_the_last(tmp_path: Path) -> None:
    users = [user_of(tmp_path) for _ in range(3)]
    said = [user.stdout.readline() for user in users if user.stdout]
    assert len(set(said)) == 1
    bootstrap = said[0].strip()
    for user in users[1:]:
        user.kill()  # killed without a chance to say so
        user.communicate()
    admin_of(bootstrap).list_topics(timeout=30)
    users[0].communicate()
    _wait_gone(bootstrap)


def _wait_gone(bootstrap: str) -> None:
    admin = admin_of(bootstrap)
    for _ in range(100):
        try:
            admin.list_topics(timeout=0.2)
        except KafkaException:
            return
    raise AssertionError(f"the broker at {bootstrap} is still there")


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `make kafka`, all in the same folder."""
    with ExitStack() as stack:

        def run(port: str = "") -> subprocess.Popen[str]:
            running = subprocess.Popen(
                [sys.executable, "-m", "tests.kafka.broker"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=tmp_path,
                env={**os.environ, "KAFKA_PORT": port or str(free_ports(1)[0]), "PYTHONPATH": str(ROOT)},
            )
            stack.enter_context(running)
            stack.callback(running.kill)
            return running

        yield run


def ready(running: subprocess.Popen[str]) -> str:
    assert running.stdout
    said = running.stdout.readline()
    assert said.startswith("ready: kafka://127.0.0.1:")
    return said.split()[1].removeprefix("kafka://")


def test_a_broker_in_the_foreground_ends_with_ctrl_c(
    foreground: Callable[..., subprocess.Popen[str]], kafka: Shared
) -> None:
    running = foreground()
    bootstrap = ready(running)
    busy = foreground(port=bootstrap.rpartition(":")[2])
    assert "address already in use; choose another with KAFKA_PORT" in busy.communicate(timeout=60)[1]
    assert busy.returncode == 1
    admin_of(bootstrap).list_topics(timeout=30)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=60)[1] == ""
    assert running.returncode == 0
    _wait_gone(bootstrap)


GUARDED = """
import subprocess, sys
from tests.kafka.broker import guard
sleeper = subprocess.Popen(["sleep", "600"])
guard(sleeper.pid)
print("guarded", flush=True)
sys.stdin.read()
"""


def test_a_broker_ends_with_the_process_that_started_it_even_if_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", GUARDED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "guarded\n"
        owner.kill()
        assert owner.stdout.read() == "", "the end of what both of them hold open"
