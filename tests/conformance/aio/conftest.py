from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.aio.harness import EmbeddedHarness, Harness, HttpHarness, KafkaHarness


@pytest.fixture(params=["embedded", "http", pytest.param("kafka", marks=pytest.mark.kafka)])
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Harness]:
    """The log under test."""
    if request.param == "kafka":
        broker, namespace = request.getfixturevalue("kafka"), request.getfixturevalue("namespace")
        made: Harness = KafkaHarness(broker.bootstrap, namespace)
    else:
        made = EmbeddedHarness(tmp_path) if request.param == "embedded" else HttpHarness(tmp_path)
    yield made
    await made.close()


@pytest.fixture
def port(harness: Harness) -> object:
    """What is tested of it."""
    return harness.port
