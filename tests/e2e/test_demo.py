"""``orchestrator demo``, as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.contrib.world import World
from orchestrator.demo.checks import CHECKS, EXPECTED
from orchestrator.log.embedded import EmbeddedLog

DEMO = [sys.executable, "-m", "orchestrator", "demo"]

DEMO_S = 110.0
"""It takes ten seconds; on a busy machine it takes its time."""

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "ORCHESTRATOR_WORLD"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(folder: Path) -> Iterator[tuple[int, str, str, bool]]:
    """Exit code, stdout and stderr of ``demo --serve``, and whether the engine answered afterwards."""
    command = [*DEMO, "--serve", "--port", "0", "--data", str(folder / "data")]
    with (folder / "stderr").open("w+") as errors:
        demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=ENVIRONMENT)
        assert demo.stdout is not None
        try:
            lines: list[str] = []
            port = 0
            while "workflow show" not in (line := demo.stdout.readline()) and line:
                lines.append(line)
                if address := re.search(r"goes on at http://127\.0\.0\.1:(\d+)", line):
                    port = int(address[1])
            answers = bool(port) and not _is_free(port)
            demo.send_signal(signal.SIGINT)
            rest = demo.stdout.read()  # `communicate` would lose what came with the last line
            demo.wait(DEMO_S)
        finally:
            demo.kill()
            demo.wait()
            demo.stdout.close()
        errors.seek(0)
        yield demo.returncode, "".join(lines) + rest, errors.read(), answers


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_everything_that_is_claimed_is_true(shown: tuple[int, str, str, bool]) -> None:
    code, out, err, _ = shown
    assert code == 0, out + err
    assert [line for line in out.splitlines() if line.startswith(("✓", "✗"))] == [
        f"✓ {check.claim}" for check in CHECKS
    ]


def test_the_table_is_plain_where_no_terminal_is(shown: tuple[int, str, str, bool]) -> None:
    _, out, err, _ = shown
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    for workflow_id, expected in EXPECTED.items():
        assert expected.status in lines[workflow_id]
        assert expected.error in lines[workflow_id]
    assert "\x1b" not in out + err


def test_the_kill_is_told_on_stderr(shown: tuple[int, str, str, bool]) -> None:
    _, out, err, _ = shown
    first, second = re.findall(r"as process (\d+)", err)
    assert f"kill -9 {first}" in err
    assert first != second
    assert "kill -9" not in out


def test_two_processes_did_the_work(shown: tuple[int, str, str, bool], folder: Path) -> None:
    killed, second = re.findall(r"as process (\d+)", shown[2])
    world = World(folder / "data" / "world")
    assert {execution.pid for execution in world.executions()} == {int(killed), int(second)}


def test_served_until_ctrl_c_and_then_stopped(shown: tuple[int, str, str, bool], folder: Path) -> None:
    code, out, _, answers = shown
    assert code == 0
    assert answers
    assert "orchestrator workflow describe m-9001-BAD --address http://127.0.0.1:" in out
    EmbeddedLog(folder / "data").close()  # raises if a process still has it


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*DEMO, *options], capture_output=True, text=True, timeout=DEMO_S, env=ENVIRONMENT, check=False
    )


def test_a_port_that_is_taken_is_one_clear_message() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == 1
    assert done.stdout == ""
    assert f"port {port} of 127.0.0.1 cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_engine_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    with EmbeddedLog(tmp_path):
        done = run("--port", "0", "--data", str(tmp_path))
    assert done.returncode == 1
    assert "ended with exit code 1" in done.stderr
    assert "is in use by process" in done.stderr
    assert "Traceback" not in done.stderr
