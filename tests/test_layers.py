"""The layers hold, and each contract that says so can be broken.

The contracts are in pyproject.toml; `make check` runs them over the package. Here each is broken once, in a
copy of it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BROKEN: dict[str, tuple[str, str, str]] = {
    "upward": ("engine/state.py", "import orchestrator.log.port", "Imports point down"),
    "upward, lazily": ("errors.py", "def f():\n    import orchestrator.codec.avro", "Imports point down"),
    "upward, for types only": (
        "log/port.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import orchestrator.worker.worker",
        "Imports point down",
    ),
    "upward, through the front door": (
        "log/port.py",
        "from orchestrator import Client",
        "Imports point down",
    ),
    "engine and workflow": ("workflow/loop.py", "import orchestrator.engine.state", "Imports point down"),
    "roles among themselves": ("worker/inbox.py", "import orchestrator.client", "Imports point down"),
    "no place in the layers": ("newcomer.py", "", "Imports point down"),
    "a clock in the rules": ("engine/timer.py", "import time", "The rules know no I/O"),
    "storage in the words": ("protocol/views.py", "import rocksdict", "The rules know no I/O"),
    "storage in the worker": ("worker/inbox.py", "import rocksdict", "Brokers and storage"),
    "a cycle": ("engine/state.py", "import orchestrator.engine.decider", "No cycles"),
}
"""What is broken: a file, a line appended to it, and how the contract's name begins."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the package and its contracts."""
    ignored = shutil.ignore_patterns("__pycache__", "_schemas")
    shutil.copytree(ROOT / "orchestrator", tmp_path / "orchestrator", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts over the package in a folder."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_layers_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", BROKEN)
def test_the_contract_can_be_broken(case: str, checkout: Path) -> None:
    path, line, contract = BROKEN[case]
    with (checkout / "orchestrator" / path).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(checkout)
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if line.startswith(contract)]
    assert any(" BROKEN" in line for line in said), done.stdout + done.stderr
