from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.log.kafka.settings import MAX_NAMESPACE_CHARS, KafkaSettings, load

ADDRESS = "kafka://127.0.0.1:9092"


def write(folder: Path, text: str) -> Path:
    path = folder / "kafka.properties"
    path.write_text(text)
    return path


def test_an_address_names_brokers_and_a_namespace_its_topics() -> None:
    settings = load("kafka://a:1,b.example,[::1]:9092", namespace="orders_2-x")
    assert settings.bootstrap == "a:1,b.example,[::1]:9092"
    assert settings.topic("history") == "orders_2-x.history"


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "# security\n\nclient.id = file\nsocket.timeout.ms=1000\n")
    environ = {
        "ORCHESTRATOR_KAFKA_CLIENT_ID": "environment",
        "ORCHESTRATOR_KAFKA_LOG_LEVEL": "3",
        "ORCHESTRATOR_LOG": "no setting of Kafka",
    }
    settings = load(ADDRESS, config_file=path, environ=environ)
    assert settings.options == {"client.id": "environment", "socket.timeout.ms": "1000", "log_level": "3"}


def test_our_settings_win_also_over_another_name_of_the_same() -> None:
    settings = KafkaSettings("a:1", options={"acks": "0", "request.required.acks": "0", "client.id": "me"})
    client = settings.client(acks="all", log_level=0)
    assert client["acks"] == "all"
    assert client["client.id"] == "me"
    assert client["bootstrap.servers"] == "a:1"
    assert client["log_level"] == 0
    assert list(client).index("acks") > list(client).index("request.required.acks")


def test_values_are_shown_nowhere() -> None:
    settings = KafkaSettings("a:1", options={"sasl.password": "hunter2"})
    assert "hunter2" not in repr(settings) + str(settings)
    assert "sasl.password" in repr(settings)


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1:9092", "http://a:1", "kafka://", "kafka://a:1/topic", "kafka://a:1?x=1", "kafka://a:1#x",
     "kafka://a:1,", "kafka://a:port", "kafka://a b:1"],
)  # fmt: skip
def test_an_address_that_is_not_understood(address: str) -> None:
    with pytest.raises(ConfigError, match="expected one like 'kafka://"):
        load(address)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError, match=r"sasl\.username") as caught:
        load("kafka://ann:hunter2@127.0.0.1:9092")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("namespace", ["", "a.b", "a b", "ä", "a/b", "x" * (MAX_NAMESPACE_CHARS + 1)])
def test_a_namespace_that_no_topic_can_have(namespace: str) -> None:
    with pytest.raises(ConfigError, match="letters, digits, - and _"):
        load(ADDRESS, namespace=namespace)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("linger.msec=hunter2", "'linger.msec' is refused: No such configuration property"),
        ("linger.ms=hunter2", "'linger.ms' is refused: Invalid value"),
        ("linger.ms=-1", "'linger.ms' is refused: .* outside allowed range"),
        ("ssl.ca.location=hunter2\nsecurity.protocol=ssl", "ssl.ca.location failed"),
        ("sasl.password=hunter2\nsecurity.protocol=sasl_plaintext\nsasl.mechanism=PLAIN", "sasl.username"),
        ("error_cb=hunter2", "no Kafka setting 'error_cb' that can be given as text"),
        ("logger=hunter2", "no Kafka setting 'logger'"),
        ("default.topic.config=hunter2", "no Kafka setting 'default.topic.config'"),
        ("bootstrap.servers=hunter2", "'bootstrap.servers' is not for a file: the address"),
        ("client.id=x\nsasl.password hunter2", "kafka.properties, line 2, is no setting of Kafka"),
        ("=hunter2", "line 1, is no setting"),
    ],
)
def test_a_setting_that_is_not_understood_is_named_without_its_value(
    tmp_path: Path, line: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        load(ADDRESS, config_file=write(tmp_path, line))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nix' cannot be read: No such file"):
        load(ADDRESS, config_file=tmp_path / "nix")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read: it is no UTF-8 text"):
        load(ADDRESS, config_file=tmp_path / "bytes")
