"""From an address to a log."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator import config
from orchestrator.errors import ConfigError
from orchestrator.log.aio import AioLog

EXAMPLES = "'http://127.0.0.1:7350' or 'kafka://127.0.0.1:9092'"


def connect(address: str, *, namespace: str = "", config_file: Path | str | None = None) -> AioLog:
    """The asyncio side of the log at an address. Sends nothing yet.

    Args:
        address: ``http://host:port`` of an engine, or ``kafka://host:port`` of brokers (more: separated by
            commas).
        namespace: on Kafka: which one; default ``$ORCHESTRATOR_NAMESPACE``, or else "default".
        config_file: on Kafka: further settings of the client, ``name=value`` in librdkafka's names; those in
            ``$ORCHESTRATOR_KAFKA_...`` win over them.

    Raises:
        ConfigError: the address is of no known kind, or a setting cannot be followed.
    """
    scheme = urlsplit(address).scheme
    if scheme == "kafka":
        return _kafka(address, namespace, config_file)
    if scheme not in ("http", "https"):
        raise ConfigError(f"the address {address!r} is not understood; expected one like {EXAMPLES}")
    if namespace or config_file is not None:
        raise ConfigError(
            f"{address} is an engine, which has its own namespace and settings; give those only with an "
            "address such as 'kafka://127.0.0.1:9092'"
        )
    return _http(address)


def _http(address: str) -> AioLog:
    from orchestrator.log.http import HttpLog  # late: who runs in one process needs no HTTP client

    return HttpLog(address)


def _kafka(address: str, namespace: str, config_file: Path | str | None) -> AioLog:
    from orchestrator.log.kafka.aio import KafkaAioLog  # late: who speaks HTTP needs no Kafka client
    from orchestrator.log.kafka.settings import load

    chosen = namespace or os.environ.get(config.NAMESPACE_VARIABLE, "") or config.NAMESPACE
    file = None if config_file is None else Path(config_file)
    return KafkaAioLog(load(address, namespace=chosen, config_file=file, environ=os.environ))
