"""Where the broker is, which namespace is meant, and the user's own settings of the Kafka client.

Any setting of librdkafka can be given, by its own name, from two places; the later one wins::

    a file            sasl.mechanism=PLAIN                          one per line, # begins a comment
    the environment   ORCHESTRATOR_KAFKA_SASL_MECHANISM=PLAIN       dots become underscores

Their values may be secrets: no message and no ``repr`` shows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from orchestrator import config
from orchestrator.errors import ConfigError

SCHEME = "kafka"

ENVIRONMENT_PREFIX = "ORCHESTRATOR_KAFKA_"

MAX_NAMESPACE_CHARS = 200
"""A topic's name has at most 249 characters, and the longest of ours adds 13."""

_NAMESPACE = re.compile(r"[A-Za-z0-9_-]+")
"""Kafka's characters, but no dot: rights on the prefix ``a.`` would reach into a namespace ``a.b``."""

_BROKER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?")

_UNDERSCORED = frozenset({"log_level"})
"""librdkafka's names that have an underscore, besides those of callbacks."""

_BY_ADDRESS = frozenset({"bootstrap.servers", "metadata.broker.list"})

_OBJECTS = re.compile(r"logger|default\.topic\.config|.*_cb")
"""What the Python client takes besides librdkafka's settings: objects, which no text describes."""


class KafkaSettings(msgspec.Struct, frozen=True):
    """One namespace on one cluster. ``options`` are the user's, in librdkafka's names."""

    bootstrap: str
    namespace: str = config.NAMESPACE
    options: Mapping[str, str] = {}

    def __repr__(self) -> str:
        names = ", ".join(sorted(self.options))
        return (
            f"KafkaSettings({self.bootstrap!r}, namespace={self.namespace!r}, options of: {names or 'none'})"
        )

    def topic(self, name: str) -> str:
        """The full name of one of our topics; ACLs on the prefix are the security boundary."""
        return f"{self.namespace}.{name}"

    @property
    def group(self) -> str:
        """The group of coordinators."""
        return self.topic("coordinators")

    @property
    def publishers(self) -> str:
        """What the transactional ids of publishers begin with."""
        return f"{self.namespace}-publish-"

    def client(self, **ours: Any) -> dict[str, Any]:
        """A configuration for confluent-kafka: ``ours`` (underscores for dots) win over the user's."""
        own = {_dotted(name): value for name, value in ours.items()}
        # librdkafka knows some settings by two names; the last one given wins, so ours come last.
        theirs = {name: value for name, value in self.options.items() if name not in own}
        return {**theirs, "bootstrap.servers": self.bootstrap, **own}


def load(
    address: str,
    *,
    namespace: str = config.NAMESPACE,
    config_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> KafkaSettings:
    """The settings behind an address such as ``kafka://127.0.0.1:9092`` (more brokers: separated by commas).

    Raises:
        ConfigError: the address, the namespace, the file or a setting is not understood.
    """
    if len(namespace) > MAX_NAMESPACE_CHARS or not _NAMESPACE.fullmatch(namespace):
        raise ConfigError(
            f"the namespace {namespace[:MAX_NAMESPACE_CHARS]!r} cannot be part of a topic's name; expected "
            f"letters, digits, - and _ (no dots), at most {MAX_NAMESPACE_CHARS}"
        )
    bootstrap = _brokers(address)
    options = dict(_from_file(config_file)) if config_file is not None else {}
    options.update(_from_environment(environ or {}))
    _check(options)
    return KafkaSettings(bootstrap=bootstrap, namespace=namespace, options=options)


def refused(error: KafkaException) -> ConfigError:
    """What to tell whose settings the Kafka client does not take, when it is made for what it is to do."""
    return ConfigError(f"the Kafka client refuses its settings: {error.args[0].str()}")


def _brokers(address: str) -> str:
    parts = urlsplit(address)
    if "@" in parts.netloc:  # and do not repeat it: what stands before it may be a password
        raise ConfigError(
            "the address of Kafka holds a user; expected one like 'kafka://127.0.0.1:9092', and who logs in "
            "as settings: sasl.username and sasl.password"
        )
    brokers = parts.netloc.split(",")
    understood = parts.scheme == SCHEME and all(map(_BROKER.fullmatch, brokers))
    if not understood or parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigError(
            f"the address {address!r} is not understood; expected one like 'kafka://127.0.0.1:9092'"
        )
    return parts.netloc


def _from_file(path: Path) -> Mapping[str, str]:
    options = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"the Kafka settings in {str(path)!r} cannot be read: {why}") from error
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, found, value = text.partition("=")
        if not found or not name.strip():
            raise ConfigError(f"{path}, line {number}, is no setting of Kafka; expected name=value")
        options[name.strip()] = value.strip()
    return options


def _from_environment(environ: Mapping[str, str]) -> Mapping[str, str]:
    return {
        _dotted(name.removeprefix(ENVIRONMENT_PREFIX).lower()): value
        for name, value in environ.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }


def _dotted(name: str) -> str:
    return name if name in _UNDERSCORED or name.endswith("_cb") else name.replace("_", ".")


def _check(options: Mapping[str, str]) -> None:
    """Ask librdkafka whether it understands them; names the one that it does not."""
    for name in options:
        if name in _BY_ADDRESS:
            raise ConfigError(f"the Kafka setting {name!r} is not for a file: the address names the brokers")
        if _OBJECTS.fullmatch(name):
            raise ConfigError(f"there is no Kafka setting {name!r} that can be given as text")
    if not options or not (complaint := _complaint(options)):
        return
    for name, value in options.items():
        alone = _complaint({name: value})
        if alone and not alone.startswith(_TOGETHER):  # some need others, and are refused without them
            raise ConfigError(f"the Kafka setting {name!r} is refused: {alone}")
    raise ConfigError(f"the Kafka settings are refused: {complaint.removeprefix(_TOGETHER)}")


_TOGETHER = "Failed to create admin client: "
"""How librdkafka's complaint begins, if it understood each setting by itself."""


def _complaint(options: Mapping[str, str]) -> str:
    """What librdkafka says against settings; it connects to nothing."""
    try:
        AdminClient({**options, "log_level": 0})
    except KafkaException as error:
        return str(error.args[0].str()).strip()
    return ""
