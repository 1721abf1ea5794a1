"""``orchestrator dev`` and the command line as processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import IO

COMMAND = (sys.executable, "-m", "orchestrator")
TIMEOUT_S = 60
"""Far above anything that works, on a machine that does much else."""

WORKFLOWS = """
from activities import greet, slow
from orchestrator import workflow
from orchestrator.errors import ApplicationError


@workflow.defn
class Greeting:
    def __init__(self):
        self.names = []

    @workflow.run
    async def run(self, name: str, more: int = 0) -> str:
        if name == "bad":
            raise ApplicationError("no such person", type="Unknown", non_retryable=True)
        greeting = await workflow.execute_activity(greet, name, start_to_close_timeout=30)
        await workflow.wait_condition(lambda: len(self.names) >= more)
        return " and ".join([greeting, *self.names])

    @workflow.signal
    def add(self, name: str) -> None:
        self.names.append(name)

    @workflow.query
    def count(self) -> int:
        return len(self.names)


@workflow.defn
class Elsewhere:
    @workflow.run
    async def run(self, name: str) -> str:
        return await workflow.execute_activity(
            "shout", name, task_queue="elsewhere", start_to_close_timeout=30
        )
"""

ACTIVITIES = """
import time
from orchestrator import activity


@activity.defn
async def greet(name: str) -> str:
    return f"hello {name}"


@activity.defn
def slow() -> None:
    time.sleep(600)
"""


def write_modules(folder: Path) -> None:
    """A user's own modules, as people name them."""
    (folder / "workflows.py").write_text(WORKFLOWS)
    (folder / "activities.py").write_text(ACTIVITIES)


class Dev:
    """A running ``orchestrator dev`` in a folder with modules."""

    def __init__(
        self, folder: Path, *, port: int = 0, data: str = "data", modules: str = "workflows"
    ) -> None:
        self.log = folder / "dev.log"
        with self.log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [*COMMAND, "dev", modules, "activities", "--data", data, "--port", str(port)],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=environment(),
            )
        try:
            self.address = self._address()
        except BaseException:
            self.close()
            raise

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def _address(self) -> str:
        assert self.process.stdout is not None
        stdout: IO[str] = self.process.stdout
        ready = re.match(r"ready: (http://\S+)", stdout.readline())
        assert ready, f"not ready: {self.log.read_text()}"
        return ready[1]

    def stop(self, number: int) -> int:
        """Send a signal; returns the exit code."""
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def close(self) -> None:
        """Be sure that it is gone."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


def environment(**more: str) -> dict[str, str]:
    """The environment without what the surroundings may have set."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    return {**kept, "NO_COLOR": "1", **more}


def command(
    *arguments: str, folder: Path, address: str = "", stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env=environment(ORCHESTRATOR_ADDRESS=address),
    )
