"""What is said where there is no Kafka; what a Kafka says is in `tests/kafka/test_admin.py`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from threading import Thread

import pytest

from orchestrator.errors import Unavailable
from orchestrator.log.kafka.cluster import Cluster
from orchestrator.log.kafka.settings import KafkaSettings

ANSWER_S = 0.7
"""Long enough for a refused connection on this machine to be reported."""


@pytest.fixture
def server() -> Iterator[Callable[[bytes], str]]:
    """Listens, and gives each connection one answer."""
    with ExitStack() as stack:

        def start(answer: bytes) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            if answer:
                serving = Thread(target=_serve, args=(listener, answer), daemon=True)
                serving.start()
                stack.callback(serving.join)
                stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return f"127.0.0.1:{listener.getsockname()[1]}"

        yield start


def _serve(listener: socket.socket, answer: bytes) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(1_000)
                connection.sendall(answer)


def test_nobody_listens() -> None:
    with pytest.raises(Unavailable, match=r"no Kafka answers at 127\.0\.0\.1:1 .*Connection refused.*port"):
        Cluster(KafkaSettings("127.0.0.1:1"), answer_s=ANSWER_S)


def test_there_is_no_such_host() -> None:
    with pytest.raises(Unavailable, match=r"Failed to resolve 'nowhere\.invalid:9092'"):
        Cluster(KafkaSettings("nowhere.invalid:9092"), answer_s=ANSWER_S)


def test_a_port_that_never_answers(server: Callable[[bytes], str]) -> None:
    with pytest.raises(Unavailable, match="nothing came back; is it a broker"):
        Cluster(KafkaSettings(server(b"")), answer_s=ANSWER_S)


def test_a_port_that_does_not_speak_kafka(server: Callable[[bytes], str]) -> None:
    with pytest.raises(Unavailable, match=r"Invalid response size .*is it a broker"):
        Cluster(KafkaSettings(server(b"HTTP/1.1 400 Bad Request\r\n\r\n")), answer_s=ANSWER_S)
