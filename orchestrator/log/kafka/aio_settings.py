"""The user's settings, which have librdkafka's names, in the words of aiokafka.

One file of settings serves all processes of a namespace. What secures the connection must be understood
here, or is refused: a connection that is less safe than its owner believes is worse than none. All else
only tunes librdkafka, which clients and workers do not use to read and write; it is ignored, and a message
says so. That each setting exists was checked when they were loaded.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.errors import ConfigError
from orchestrator.log.kafka.settings import KafkaSettings

_logger = logging.getLogger(__name__)

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI")
"""Of SASL, as far as a file of settings can describe them."""


class AioSettings(msgspec.Struct, frozen=True):
    """Keyword arguments for aiokafka's classes: those for all of them, and what is only for some."""

    common: Mapping[str, Any]
    producer: Mapping[str, Any]
    consumer: Mapping[str, Any]


def translate(settings: KafkaSettings) -> AioSettings:
    """The settings for aiokafka.

    Raises:
        ConfigError: a value is not understood, or a setting that secures the connection has no counterpart.
    """
    options = {_ALIASES.get(name, name): value for name, value in settings.options.items()}
    kinds: dict[str, dict[str, Any]] = {"common": {}, "producer": {}, "consumer": {}}
    for name, (kind, theirs, convert) in _NAMES.items():
        if name in options:
            kinds[kind][theirs] = convert(name, options[name])
    unknown = sorted(set(options) - set(_NAMES) - _TLS - _OURS)
    refused = [name for name in unknown if name.startswith(_SECURING)]
    if refused:
        raise ConfigError(
            f"clients and workers cannot follow the Kafka setting {refused[0]!r}, and without it the "
            f"connection might not be as safe as it should be; understood are {', '.join(_secure_names())}"
        )
    if unknown:
        _logger.info("Kafka settings without a meaning for clients and workers: %s", ", ".join(unknown))
    common = {"bootstrap_servers": settings.bootstrap.split(","), **kinds["common"]}
    protocol = common.get("security_protocol", "PLAINTEXT")
    if protocol.startswith("SASL_"):
        _check_sasl(common)
    if protocol.endswith("SSL"):
        common["ssl_context"] = _tls(options)
    return AioSettings(common=common, producer=kinds["producer"], consumer=kinds["consumer"])


def _check_sasl(common: Mapping[str, Any]) -> None:
    mechanism = common.get("sasl_mechanism")
    if mechanism is None:
        raise ConfigError("security.protocol asks for SASL; name a sasl.mechanism such as SCRAM-SHA-512")
    if mechanism == "GSSAPI":
        if find_spec("gssapi") is None:
            raise ConfigError("sasl.mechanism GSSAPI needs the package 'gssapi' here; install it")
    elif not {"sasl_plain_username", "sasl_plain_password"} <= set(common):
        raise ConfigError(f"sasl.mechanism {mechanism} needs sasl.username and sasl.password")


def _tls(options: Mapping[str, str]) -> ssl.SSLContext:
    """How the broker is verified, and how this side shows who it is."""
    try:
        context = _trusting(options)
        if options.get("ssl.endpoint.identification.algorithm", "https").lower() == "none":
            context.check_hostname = False
        if not _flag("enable.ssl.certificate.verification", options.get(_VERIFY, "true")):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if "ssl.cipher.suites" in options:
            context.set_ciphers(options["ssl.cipher.suites"])
        if "ssl.certificate.location" in options:
            context.load_cert_chain(
                options["ssl.certificate.location"],
                options.get("ssl.key.location"),
                options.get("ssl.key.password", ""),  # never asked for at the terminal
            )
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        named = ", ".join(f"{name}={options[name]}" for name in sorted(_TLS & _FILES & set(options)))
        raise ConfigError(f"the TLS settings cannot be used ({named}): {error}") from error
    return context


def _trusting(options: Mapping[str, str]) -> ssl.SSLContext:
    location, text = options.get("ssl.ca.location", "probe"), options.get("ssl.ca.pem")
    if location == "probe":  # the system's own, if no other is given
        return ssl.create_default_context(cadata=text)
    if Path(location).is_dir():
        return ssl.create_default_context(capath=location, cadata=text)
    return ssl.create_default_context(cafile=location, cadata=text)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise ConfigError(f"the Kafka setting {name} is {value!r}; expected true or false")
    return value.lower() == "true"


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise ConfigError(f"the Kafka setting {name} is {value!r}; expected a number")
    return int(value)


def _number_or_never(name: str, value: str) -> int | None:
    return _number(name, value) or None


def _text(name: str, value: str) -> str:
    return value


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def convert(name: str, value: str) -> str:
        if value.upper() not in allowed:
            raise ConfigError(f"the Kafka setting {name} is {value!r}; expected one of {', '.join(allowed)}")
        return value.upper()

    return convert


def _compression(name: str, value: str) -> str | None:
    codec = _one_of("NONE", "GZIP", "SNAPPY", "LZ4", "ZSTD")(name, value).lower()
    if codec not in ("none", "gzip") and find_spec("cramjam") is None:
        raise ConfigError(
            f"{name}={codec} needs the package 'cramjam' here; install it, or take gzip or none"
        )
    return None if codec == "none" else codec


_VERIFY = "enable.ssl.certificate.verification"

_ALIASES = {"sasl.mechanisms": "sasl.mechanism", "compression.codec": "compression.type"}
"""Two names for one setting."""

_NAMES: Mapping[str, tuple[str, str, Callable[[str, str], Any]]] = {
    "client.id": ("common", "client_id", _text),
    "security.protocol": (
        "common",
        "security_protocol",
        _one_of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"),
    ),
    "sasl.mechanism": ("common", "sasl_mechanism", _one_of(*MECHANISMS)),
    "sasl.username": ("common", "sasl_plain_username", _text),
    "sasl.password": ("common", "sasl_plain_password", _text),
    "sasl.kerberos.service.name": ("common", "sasl_kerberos_service_name", _text),
    "metadata.max.age.ms": ("common", "metadata_max_age_ms", _number),
    "retry.backoff.ms": ("common", "retry_backoff_ms", _number),
    "connections.max.idle.ms": ("common", "connections_max_idle_ms", _number_or_never),
    "compression.type": ("producer", "compression_type", _compression),
    "fetch.wait.max.ms": ("consumer", "fetch_max_wait_ms", _number),
    "check.crcs": ("consumer", "check_crcs", _flag),
}
"""Which setting is which keyword argument of which classes."""

_TLS = frozenset(
    {
        "ssl.ca.location",
        "ssl.ca.pem",
        "ssl.certificate.location",
        "ssl.key.location",
        "ssl.key.password",
        "ssl.cipher.suites",
        "ssl.endpoint.identification.algorithm",
        _VERIFY,
    }
)
"""What becomes an ``ssl.SSLContext``."""

_FILES = frozenset({"ssl.ca.location", "ssl.certificate.location", "ssl.key.location"})

_OURS = frozenset({"bootstrap.servers", "acks", "enable.idempotence", "group.id"})
"""Not for the user to choose: the log's promises depend on them."""

_SECURING = ("security.", "sasl.", "ssl.", "enable.ssl.", "enable.sasl.", "https.")


def _secure_names() -> list[str]:
    return sorted(name for name in {*_NAMES, *_TLS} if name.startswith(_SECURING))
