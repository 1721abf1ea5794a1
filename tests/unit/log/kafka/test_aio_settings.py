from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import ConfigError
from orchestrator.log.kafka.aio_settings import AioSettings, translate
from orchestrator.log.kafka.settings import KafkaSettings

TLS = Path(__file__).parents[3] / "fixtures" / "tls"
CERTIFICATE, KEY = TLS / "certificate.pem", TLS / "key.pem"
"""A certificate, which may be taken for an authority, and its key. Made by ``openssl req -x509 -newkey ec
-pkeyopt ec_paramgen_curve:prime256v1 -subj /CN=localhost -days 36500 -passout pass:secret``."""


def translated(**options: str) -> AioSettings:
    """Options with underscores for dots."""
    dotted = {name.replace("_", "."): value for name, value in options.items()}
    return translate(KafkaSettings(bootstrap="a:1,b:2", options=dotted))


def tls(**options: str) -> ssl.SSLContext:
    context = translated(security_protocol="ssl", **options).common["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    return context


def test_without_options_only_the_brokers_are_named() -> None:
    found = translated()
    assert (found.common, found.producer, found.consumer) == ({"bootstrap_servers": ["a:1", "b:2"]}, {}, {})


@pytest.mark.parametrize(
    ("name", "value", "where", "expected"),
    [
        ("client.id", "shop", "common", {"client_id": "shop"}),
        ("metadata.max.age.ms", "1000", "common", {"metadata_max_age_ms": 1000}),
        ("connections.max.idle.ms", "0", "common", {"connections_max_idle_ms": None}),
        ("compression.codec", "gzip", "producer", {"compression_type": "gzip"}),
        ("compression.type", "none", "producer", {"compression_type": None}),
        ("fetch.wait.max.ms", "20", "consumer", {"fetch_max_wait_ms": 20}),
        ("check.crcs", "false", "consumer", {"check_crcs": False}),
    ],
)
def test_what_has_a_counterpart_goes_where_it_belongs(
    name: str, value: str, where: str, expected: dict[str, Any]
) -> None:
    found = translate(KafkaSettings(bootstrap="a:1", options={name: value}))
    assert expected.items() <= getattr(found, where).items()
    others = {"common", "producer", "consumer"} - {where}
    assert not any(set(expected) & set(getattr(found, other)) for other in others)


@pytest.mark.parametrize("name", ["sasl.mechanism", "sasl.mechanisms"])
def test_a_login_is_passed_on(name: str) -> None:
    login = {"security.protocol": "sasl_plaintext", "sasl.username": "u", "sasl.password": " p=1 "}
    found = translate(KafkaSettings(bootstrap="a:1", options={**login, name: "scram-sha-512"}))
    assert found.common == {
        "bootstrap_servers": ["a:1"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "u",
        "sasl_plain_password": " p=1 ",
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sasl_mechanism": "OAUTHBEARER"}, "sasl.mechanism is 'OAUTHBEARER'; expected one of PLAIN"),
        ({"security_protocol": "sasl_ssl"}, "name a sasl.mechanism"),
        ({"security_protocol": "sasl_plaintext", "sasl_mechanism": "PLAIN"}, "needs sasl.username"),
        ({"security_protocol": "sasl_plaintext", "sasl_mechanism": "GSSAPI"}, "needs the package 'gssapi'"),
        ({"ssl_keystore_location": "x"}, "cannot follow the Kafka setting 'ssl.keystore.location'"),
        ({"sasl_oauthbearer_method": "oidc"}, "cannot follow the Kafka setting 'sasl.oauthbearer.method'"),
        ({"retry_backoff_ms": "soon"}, "retry.backoff.ms is 'soon'; expected a number"),
        ({"check_crcs": "maybe"}, "check.crcs is 'maybe'; expected true or false"),
        ({"compression_type": "lzma"}, "expected one of NONE, GZIP"),
        ({"compression_type": "zstd"}, "compression.type=zstd needs the package 'cramjam'"),
        ({"security_protocol": "ssl", "ssl_ca_location": "/no/such.pem"}, "ssl.ca.location=/no/such.pem"),
        ({"security_protocol": "ssl", "ssl_cipher_suites": "none of them"}, "TLS settings cannot be used"),
    ],
)
def test_what_cannot_be_followed_is_refused_in_words(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        translated(**options)
    assert words in str(refused.value)


def test_what_only_tunes_librdkafka_is_ignored_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert translated(socket_nagle_disable="true", linger_ms="5", acks="all").producer == {}
    assert "linger.ms, socket.nagle.disable" in caplog.text
    assert "acks" not in caplog.text, "ours to choose, and no surprise to anybody"


class TestTls:
    def test_the_broker_is_verified_by_default(self) -> None:
        context = tls()
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname

    def test_its_name_alone_may_go_unchecked(self) -> None:
        context = tls(ssl_endpoint_identification_algorithm="none")
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)

    def test_verification_may_be_switched_off(self) -> None:
        context = tls(enable_ssl_certificate_verification="false")
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_NONE, False)

    def test_an_authority_comes_from_a_file_or_as_text(self) -> None:
        subjects = [
            [one["subject"] for one in context.get_ca_certs()]
            for context in (
                tls(ssl_ca_location=str(CERTIFICATE)),
                tls(ssl_ca_pem=CERTIFICATE.read_text()),
            )
        ]
        assert subjects == [[((("commonName", "localhost"),),)]] * 2
        assert not tls(ssl_ca_location=str(CERTIFICATE.parent)).get_ca_certs(), "a folder is read when needed"

    def test_this_side_shows_who_it_is(self) -> None:
        files = {"ssl_certificate_location": str(CERTIFICATE), "ssl_key_location": str(KEY)}
        tls(**files, ssl_key_password="secret")
        for wrong in ({}, {"ssl_key_password": "wrong"}):
            with pytest.raises(ConfigError, match=r"ssl\.certificate\.location=.*ssl\.key\.location="):
                tls(**files, **wrong)

    def test_options_of_tls_mean_nothing_without_it(self) -> None:
        assert "ssl_context" not in translated(ssl_ca_location="/no/such.pem").common
