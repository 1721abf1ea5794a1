"""The help of each command: an example in each, and nothing imported for it that takes long."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from orchestrator import cli

HEAVY = {"aiokafka", "confluent_kafka", "fastapi", "httpx", "jinja2", "opentelemetry", "rocksdict", "uvicorn"}
"""Libraries that take a tenth of a second and more to import, or that nobody asked for."""

COMMANDS = [
    *((name,) for name in cli._COMMANDS),
    *((group, name) for group, (_, commands) in cli._GROUPS.items() for name in commands),
]

CODE = """
import json, sys
from orchestrator.cli import run
code = run(sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_each_command_has_an_example_and_is_soon_there(words: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", CODE, *words, "--help"]
    environment = {"COLUMNS": "200", "PYTHONIOENCODING": "utf-8", "PYTHONHASHSEED": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    *shown, last = done.stdout.splitlines()
    code, modules = json.loads(last)
    text = " ".join(" ".join(shown).split())
    assert code == 0
    assert f"Usage: orchestrator {' '.join(words)}" in text
    assert f"Example: orchestrator {' '.join(words)}" in text
    assert "124 the wait timed out" in text
    assert not set(modules) & HEAVY
