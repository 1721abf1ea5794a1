from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.log.harness import EmbeddedHarness, Harness, SimulatedHarness


@pytest.fixture(params=["embedded", "simulated"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    """The log under test. A further adapter joins by a branch here."""
    made: Harness = EmbeddedHarness(tmp_path) if request.param == "embedded" else SimulatedHarness()
    yield made
    made.close()
