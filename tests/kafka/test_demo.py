"""``orchestrator demo`` on Kafka, as a user runs it: one process of each role is killed in the middle."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from orchestrator.demo.checks import CHECKS, EXPECTED
from orchestrator.log.kafka import admin
from orchestrator.log.kafka.settings import KafkaSettings
from tests.kafka.shared import Shared

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(500)]

DEMO_S = 240.0
"""It takes half a minute; on a busy machine it takes its time."""


def demo(kafka: Shared) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "orchestrator", "demo", "--port", "0"),
            *("--log", f"kafka://{kafka.bootstrap}"),
        ],
        capture_output=True,
        text=True,
        timeout=DEMO_S,
        check=False,
    )


def test_the_demo_on_kafka_ends_as_the_one_in_a_folder(kafka: Shared) -> None:
    done = demo(kafka)
    assert done.returncode == 0, done.stdout + done.stderr
    for check in CHECKS:
        assert f"✓ {check.claim}" in done.stdout
    for workflow_id in EXPECTED:
        assert re.search(rf"^{workflow_id} ", done.stdout, re.MULTILINE)
    killed = re.search(r"kill -9 \d+ \((.*?)\); kill -9 \d+ \((.*?)\); kill -9 \d+ \((.*?)\)", done.stderr)
    assert killed is not None
    assert killed.groups() == ("coordinator 1", "worker 1", "view")

    namespace = re.search(r"namespace (demo-\w+)", done.stderr)
    assert namespace is not None
    left = admin.survey(KafkaSettings(bootstrap=kafka.bootstrap, namespace=namespace[1]))
    assert {topic.state for topic in left} == {"missing"}, "the demo leaves nothing behind"
