"""Where the broker is, which namespace is meant, and the user's own settings of the Kafka client.

Any setting of librdkafka can be given, by its own name, from two places; the later one wins::

    a file            sasl.mechanism=PLAIN                          one per line, # begins a comment
    the environment   ORCHESTRATOR_KAFKA_SASL_MECHANISM=PLAIN       dots become underscores
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from orchestrator import config
from orchestrator.errors import ConfigError

SCHEME = "kafka"

ENVIRONMENT_PREFIX = "ORCHESTRATOR_KAFKA_"


class KafkaSettings(msgspec.Struct, frozen=True):
    """One namespace on one cluster. ``options`` are the user's, in librdkafka's names."""

    bootstrap: str
    namespace: str = config.NAMESPACE
    options: Mapping[str, str] = {}

    def topic(self, name: str) -> str:
        """The full name of one of our topics; ACLs on the prefix are the security boundary."""
        return f"{self.namespace}.{name}"

    def client(self, **ours: Any) -> dict[str, Any]:
        """A configuration for confluent-kafka: ``ours`` (underscores for dots) win over the user's."""
        own = {name.replace("_", "."): value for name, value in ours.items()}
        return {**self.options, "bootstrap.servers": self.bootstrap, **own}


def load(
    address: str,
    *,
    namespace: str = config.NAMESPACE,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> KafkaSettings:
    """The settings behind an address such as ``kafka://127.0.0.1:9092`` (more brokers: separated by commas).

    Raises:
        ConfigError: the address, the namespace or the file is not understood.
    """
    parts = urlsplit(address)
    if parts.scheme != SCHEME or not parts.netloc or parts.path.strip("/") or parts.query:
        raise ConfigError(
            f"the address {address!r} is not understood; expected one like 'kafka://127.0.0.1:9092'"
        )
    options = dict(_from_file(config_file)) if config_file is not None else {}
    options.update(_from_environment(environ or {}))
    return KafkaSettings(bootstrap=parts.netloc, namespace=namespace, options=options)


def _from_file(path: Path) -> Mapping[str, str]:
    options = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"the Kafka settings in {str(path)!r} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, found, value = text.partition("=")
        if not found or not name.strip():
            raise ConfigError(f"{path}, line {number}: {text!r} is no setting; expected name=value")
        options[name.strip()] = value.strip()
    return options


def _from_environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    return {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", "."): value
        for name, value in environ.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }
