from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conformance.log.harness import EmbeddedHarness, Harness, SimulatedHarness
from tests.conformance.log.kafka_harness import KafkaHarness

MAKERS: dict[str, Callable[[pytest.FixtureRequest], Harness]] = {
    "embedded": lambda request: EmbeddedHarness(request.getfixturevalue("tmp_path")),
    "simulated": lambda request: SimulatedHarness(),
    "kafka": lambda request: KafkaHarness(
        request.getfixturevalue("kafka").bootstrap, request.getfixturevalue("namespace")
    ),
}


@pytest.fixture(params=["embedded", "simulated", pytest.param("kafka", marks=pytest.mark.kafka)])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """The log under test. A further adapter joins by a line of ``MAKERS``."""
    made = MAKERS[request.param](request)
    yield made
    made.close()
