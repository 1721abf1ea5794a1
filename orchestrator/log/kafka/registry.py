"""Schemas in a schema registry, for tools that ask one. Only ``topic create`` asks it."""

from __future__ import annotations

from typing import Any

import httpx

from orchestrator.codec import avro
from orchestrator.errors import ConfigError, Unavailable
from orchestrator.log.kafka.settings import KafkaSettings

ANSWER_S = 10.0
"""A registry writes to Kafka before it answers."""


def register(url: str, settings: KafkaSettings) -> dict[str, int]:
    """Register our schemas, each as the value of its topic; returns the registry's ids by ours.

    Raises:
        ConfigError: what answers is no registry, or it refuses a schema.
        Unavailable: nothing answers there.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"the registry {url!r} is not understood; expected one like http://127.0.0.1:8081")
    with httpx.Client(base_url=url.rstrip("/"), timeout=ANSWER_S, trust_env=False) as client:
        return {
            str(number): _register(client, f"{settings.topic(topic)}-value", schema)
            for topic, (number, schema) in avro.DEFAULT.schemas().items()
        }


def _register(client: httpx.Client, subject: str, schema: str) -> int:
    try:
        answer = client.post(f"/subjects/{subject}/versions", json={"schema": schema})
        found: Any = answer.json() if answer.is_success else answer.text
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"no schema registry answers at {client.base_url} ({error}); try again") from error
    except ValueError:
        found = answer.text
    if not isinstance(found, dict) or type(found.get("id")) is not int:
        raise ConfigError(
            f"the registry at {client.base_url} does not take the schema {subject}: it answers "
            f"{answer.status_code} {str(found)[:200]}"
        )
    number: int = found["id"]
    return number
