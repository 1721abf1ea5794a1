from __future__ import annotations

import threading

import pytest

from orchestrator.api.upkeep import Upkeep
from orchestrator.errors import LogError

PATIENCE_S = 20


class CountingLog:
    """Stands for a log whose compactions are waited for; the first one fails."""

    def __init__(self) -> None:
        self.compactions = 0
        self.third = threading.Event()

    def compact(self) -> int:
        self.compactions += 1
        if self.compactions == 3:
            self.third.set()
        if self.compactions == 1:
            raise LogError("the disk failed")
        return 0


def test_upkeep_compacts_again_and_again(caplog: pytest.LogCaptureFixture) -> None:
    log = CountingLog()
    upkeep = Upkeep(log, every_s=0.001)
    assert log.third.wait(PATIENCE_S)
    upkeep.close()
    assert "was not compacted: the disk failed" in caplog.text
