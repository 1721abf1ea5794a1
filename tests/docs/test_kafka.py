"""docs/kafka.md says what the code does: the rights that each role needs."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.log.kafka.admin import NEEDS

TEXT = (Path(__file__).parent.parent.parent / "docs" / "kafka.md").read_text()


def test_the_rights_are_those_that_are_checked() -> None:
    """As ``READ `one`, `another`; WRITE `one```, by role and topic."""
    table = TEXT.partition("## Rights")[2].partition("\n## ")[0]
    documented = {
        role: {
            (topic, operation)
            for operation, topics in re.findall(r"([A-Z]+) ((?:`[\w-]+`(?:, )?)+)", rights)
            for topic in re.findall(r"`([\w-]+)`", topics)
        }
        for role, rights in re.findall(r"^\| (\w+) \| ([A-Z]+ `.*?) \|", table, re.MULTILINE)
    }
    assert documented == {
        role: {(topic, operation) for topic, operations in topics.items() for operation in operations}
        for role, topics in NEEDS.items()
    }
