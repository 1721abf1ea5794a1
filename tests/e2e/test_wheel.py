"""The package as users get it: its wheel, in a clean environment elsewhere, beside code of their own."""

from __future__ import annotations

import os
import re
import signal
import site
import socket
import subprocess
import sys
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from orchestrator.codec.schema import TOPICS

ROOT = Path(__file__).parent.parent.parent

COMMAND_S = 60.0
"""Longer than any command here takes on a busy machine, but for the build."""

BUILD_S = 110.0
"""A build fetches its backend from the package index."""

ACTIVITIES = """
from orchestrator import activity

@activity.defn
async def greet(name: str) -> str:
    return f"Hello, {name}!"
"""

WORKFLOWS = """
from activities import greet
from orchestrator import workflow

@workflow.defn
class Greeting:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(greet, name, start_to_close_timeout=10)
"""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def run(*command: str | Path, cwd: Path, timeout_s: float = COMMAND_S) -> str:
    """Run a command to its end; returns its stdout. PYTHONPATH and the like are not passed on to it."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=_clean_environment(),
        timeout=timeout_s,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def _clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")} | {
        "NO_COLOR": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    run(*build, cwd=folder, timeout_s=BUILD_S)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment with the wheel in it. The dependencies are borrowed from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth file adds a folder, without the .pth files in it: so not this checkout.
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's own folder, whose modules have the names that collide most easily."""
    (tmp_path / "activities.py").write_text(ACTIVITIES)
    (tmp_path / "workflows.py").write_text(WORKFLOWS)
    return tmp_path


@pytest.fixture
def address(python: Path, project: Path) -> Iterator[str]:
    """Of a running `orchestrator dev workflows activities` in the project."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = project / "engine.log"
    with log.open("w") as output:
        engine = subprocess.Popen(
            [python.parent / "orchestrator", "dev", "workflows", "activities", "--port", str(port)],
            cwd=project, env=_clean_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        _wait_for_port(engine, port, log)
        yield f"http://127.0.0.1:{port}"
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(COMMAND_S) == 0, log.read_text()
    finally:
        engine.kill()
        engine.wait()


def _wait_for_port(engine: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(int(COMMAND_S / 0.05)):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            engine.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        break
    pytest.fail(f"the engine does not listen:\n{log.read_text()}")


def test_the_wheel_has_one_top_level_package(names: set[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"orchestrator"}


def test_the_wheel_has_the_files_that_are_no_code(names: set[str]) -> None:
    schemas = {f"orchestrator/_schemas/{topic}.avsc" for topic in TOPICS}
    inputs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "orchestrator/demo").glob("*.jsonl")}
    assert inputs
    pages = ROOT / "orchestrator/api/pages"
    shown = {
        path.relative_to(ROOT).as_posix()
        for folder in ("templates", "static")
        for path in (pages / folder).rglob("*")
        if path.is_file()
    }
    assert shown
    assert {"orchestrator/py.typed"} | schemas | inputs | shown <= names


def test_the_wheel_has_every_module_and_nothing_else(names: set[str]) -> None:
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "orchestrator").rglob("*.py")}
    ready = {f"orchestrator/contrib/{path.name}" for path in (ROOT / "activities").glob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules | ready
    assert not [name for name in names if re.search(r"__pycache__|\.pyc$|/tests?/", name)]


def test_the_metadata_says_what_it_is(metadata: Message, names: set[str]) -> None:
    assert metadata["Name"] == "kafka-orchestrator"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]


def test_the_package_comes_from_the_wheel_alone(python: Path, tmp_path: Path) -> None:
    code = "import orchestrator.contrib; print(orchestrator.contrib.__file__)"
    place = Path(run(python, "-c", code, cwd=tmp_path).strip())
    assert place.is_relative_to(python.parent.parent)


def test_a_user_s_modules_run_on_the_installed_package(python: Path, project: Path, address: str) -> None:
    tool = python.parent / "orchestrator"
    place = ["--address", address]
    run(tool, "workflow", "start", "Greeting", "--id", "g-1", "--input", '"Ada"', *place, cwd=project)
    assert "Hello, Ada!" in run(tool, "workflow", "result", "g-1", *place, cwd=project)
    with urllib.request.urlopen(f"{address}/workflows", timeout=COMMAND_S) as page:
        assert b">g-1</a>" in page.read()
