"""Each example, alone, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
EXAMPLE_S = 60.0

EXPECTED = {
    "hello": ["Hello, world!"],
    "events": ["order-17 {'order': 'o-17', 'tracking': 'tracking-o-17'}"],
    "onboarding": [
        "m-7731 can sell: Onboarded(merchant='merchant-m-7731', account='account-m-7731', risk_score=12)",
        "m-9001-BAD was refused: sanctions hit",
        "m-7732 can sell: Onboarded(merchant='merchant-m-7732', account='account-m-7732', risk_score=12)",
        "m-7733 was refused: risk score 97 is above 80 compensation-deferred",
    ],
    "orders": [
        "status: manual review: card declined",
        "Shipment(payment='invoice-o-17', package='package-o-17', tracking='tracking-o-17')",
    ],
}


def run(name: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / f"{name}.py"],
        cwd=folder,
        env=os.environ | {"ORCHESTRATOR_WORLD": str(folder / "world")} | environment,
        capture_output=True,
        text=True,
        timeout=EXAMPLE_S,
        check=False,
    )


def test_every_example_is_tested() -> None:
    kafka = {"kafka_avro", "kafka_start", "kafka_worker", "kafka_history"}  # tests/kafka/test_wire.py
    assert {file.stem for file in EXAMPLES.glob("*.py")} == {
        *EXPECTED,
        *kafka,
        "http_worker",
        "foreign_worker",
    }


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_does_what_it_says(name: str, tmp_path: Path) -> None:
    done = run(name, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-len(EXPECTED[name]) :] == EXPECTED[name]
    assert [path.name for path in tmp_path.iterdir() if path.name != "world"] == []


def test_hello_is_small() -> None:
    code = (EXAMPLES / "hello.py").read_text().split('"""')[2]
    assert len([line for line in code.splitlines() if line]) <= 18


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of an engine that has the workflow of http_worker.py."""
    command = [sys.executable, "-m", "orchestrator", "dev", "http_worker"]
    with (tmp_path / "engine.log").open("w") as log:
        engine = subprocess.Popen(
            [*command, "--port", "0", "--data", tmp_path / "data"],
            cwd=EXAMPLES,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert engine.stdout is not None
        ready = engine.stdout.readline()
        assert ready.startswith("ready: http://"), (tmp_path / "engine.log").read_text()
        yield ready.split()[1]
        engine.send_signal(signal.SIGTERM)
        engine.communicate(timeout=EXAMPLE_S)
        assert engine.returncode == 0
    finally:
        engine.kill()
        engine.communicate()


def test_a_worker_in_a_program_of_its_own(address: str, tmp_path: Path) -> None:
    done = run("http_worker", tmp_path, ORCHESTRATOR_ADDRESS=address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kitchen: 21 °C, measured by process ")


def test_a_worker_that_speaks_http_alone(address: str) -> None:
    """It is given the activity of http_worker.py, whose own worker does not run."""
    worker = subprocess.Popen(
        [sys.executable, EXAMPLES / "foreign_worker.py"],
        env={**os.environ, "ORCHESTRATOR_ADDRESS": address},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "serving the queue 'measuring'\n"
        start = {"id": "kitchen", "type": "Measurement", "input": ["kitchen"]}
        httpx.post(f"{address}/api/v1/workflows", json=start).raise_for_status()
        answer = httpx.get(f"{address}/api/v1/workflows/kitchen/result?wait_s=15", timeout=20)
        assert answer.json()["result"] == "kitchen: 70 °F, measured in another language"
        worker.send_signal(signal.SIGINT)
        assert worker.wait(EXAMPLE_S) == 0
    finally:
        worker.kill()
        worker.communicate()


def test_a_worker_without_an_engine_says_so(tmp_path: Path) -> None:
    done = run("http_worker", tmp_path, ORCHESTRATOR_ADDRESS="http://127.0.0.1:9")
    assert done.returncode == 1
    assert done.stderr.startswith("no answer from http://127.0.0.1:9")
    assert "Traceback" not in done.stderr
