from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.log.connect import connect
from orchestrator.log.http import HttpLog
from orchestrator.log.kafka.aio import KafkaAioLog


async def test_the_scheme_chooses_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    http = connect("https://orchestrator.example:7350")
    assert isinstance(http, HttpLog)
    await http.close()
    settings = tmp_path / "kafka.properties"
    settings.write_text("client.id=shop\n")
    kafka = connect("kafka://a:1,b:2", namespace="orders", config_file=settings)
    assert isinstance(kafka, KafkaAioLog)
    assert kafka.settings.bootstrap == "a:1,b:2"
    assert kafka.settings.topic("tasks") == "orders.tasks"
    assert kafka.settings.options == {"client.id": "shop"}
    await kafka.close()


async def test_the_environment_says_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_NAMESPACE", "from-outside")
    monkeypatch.setenv("ORCHESTRATOR_KAFKA_CLIENT_ID", "shop")
    found = connect("kafka://a:1")
    assert isinstance(found, KafkaAioLog)
    assert found.settings.namespace == "from-outside"
    assert found.settings.options == {"client.id": "shop"}
    await found.close()


@pytest.mark.parametrize("address", ["", "7350", "ftp://a", "127.0.0.1:7350", "redis://a:1"])
def test_an_unknown_kind_of_address_is_shown_with_the_known_ones(address: str) -> None:
    with pytest.raises(ConfigError, match=r"is not understood; expected .*'http://.*'kafka://"):
        connect(address)


@pytest.mark.parametrize(
    "given",
    [{"namespace": "orders"}, {"config_file": "kafka.properties"}],
    ids=lambda given: next(iter(given)),
)
def test_an_engine_chooses_its_namespace_itself(given: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="is an engine, which has its own namespace"):
        connect("http://127.0.0.1:7350", **given)
