"""Every code block of every document runs, in order, in a folder of the document's own.

`orchestrator dev` goes on in the background, as in a terminal of its own, until it is started anew or the
document ends. The port 7350 of the documents is a free one here.
"""

from __future__ import annotations

import doctest
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestrator import config
from tests.docs.blocks import RUN, Block, Command, blocks, commands

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])

COMMAND_S = 60.0
"""No command of a document may take longer than a reader's patience."""

WIDE_CHARS = 96
"""Signs of a line of code that a page shows without a scroll bar: 838 px at GitHub, at 13.6 px a letter."""

FIRST_SCREEN_CHARS = 87
"""The same for the picture and the code that stand side by side at the top of the README, both together."""

NOT_RUN = 9
"""Blocks that are left out, in all documents together: each is a promise that nobody holds us to."""

_GOES_ON = re.compile(r"orchestrator dev |python worker\.py$")
"""What a reader leaves running in a terminal of its own."""

_PORT = str(config.PORT)
_TICK_S = 0.02


class Terminal:
    """Runs blocks in a folder, with the `orchestrator` and `python` of this environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])
        self.engine: subprocess.Popen[bytes] | None = None
        self.others: list[subprocess.Popen[bytes]] = []
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "NO_COLOR": "1",
            "COLUMNS": "160",
            "PYTHONPATH": "",
            config.ADDRESS_VARIABLE: f"http://{config.HOST}:{self.port}",
        }

    def run(self, block: Block) -> None:
        """Run a block; raises AssertionError with all output if that fails."""
        if block.language == "python" and block.title:
            file = self.folder / block.title
            file.write_text(self.local(block.text), encoding="utf-8")
            self.finish([sys.executable, "-W", "error", "-m", "compileall", "-q", file.name], block.line)
        elif block.language == "python":
            self.finish([sys.executable, "-W", "error", "-"], block.line, stdin=self.local(block.text))
        elif block.language == "bash":
            self.finish(["bash", "-euo", "pipefail", "-c", self.local(block.text)], block.line)
        else:
            for command in commands(block):
                self.type(command)

    def type(self, command: Command) -> None:
        """Run a line of a console, and hold its output against what the document shows."""
        if _GOES_ON.match(command.text):
            self.leave_running(command)
            return
        output = self.finish(["bash", "-c", self.local(command.text)], command.line)
        shown = self.local(command.shown)
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        assert not shown or doctest.OutputChecker().check_output(shown, output, flags), (
            f"line {command.line}: $ {command.text}\nshown:\n{shown}\nfound:\n{output}"
        )

    def finish(self, command: list[str], line: int, stdin: str = "") -> str:
        """Run a command to its end; returns what it printed on stdout."""
        process = self.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            output, errors = process.communicate(stdin.encode(), COMMAND_S)
        except subprocess.TimeoutExpired:
            _kill(process)
            pytest.fail(f"line {line}: {command[-1]} did not end within {COMMAND_S:g} s")
        text = output.decode()
        assert process.returncode == 0, (
            f"line {line}: exit code {process.returncode}\n{text}{errors.decode()}"
        )
        return text

    def start(self, command: list[str], **files: Any) -> subprocess.Popen[bytes]:
        """Start a command, as the leader of a group that can be ended as a whole."""
        return subprocess.Popen(
            command, **files, cwd=self.folder, env=self.environment, start_new_session=True
        )

    def leave_running(self, command: Command) -> None:
        """Start a command, and if it is the engine, wait until it answers; it replaces an earlier engine."""
        is_engine = "orchestrator dev" in command.text
        if is_engine:
            self.stop_engine()
        text = f"{command.text} --port {_PORT}" if is_engine else command.text
        log = self.folder / f"line-{command.line}.log"
        with log.open("w") as output:
            line = ["bash", "-c", f"exec {self.local(text)}"]
            process = self.start(line, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        if not is_engine:
            self.others.append(process)
            return
        self.engine = process
        deadline = time.monotonic() + COMMAND_S
        while not self.answers():
            if _ended(process, _TICK_S) or time.monotonic() > deadline:
                pytest.fail(f"line {command.line}: $ {command.text}\n{log.read_text()}")

    def answers(self) -> bool:
        """Whether somebody listens on the port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", int(self.port))) == 0

    def local(self, text: str) -> str:
        """The text with this terminal's port."""
        return text.replace(_PORT, self.port)

    def stop_engine(self) -> None:
        """Stop the engine, if there is one, as Ctrl-C or a service manager would; it must end cleanly."""
        engine, self.engine = self.engine, None
        if engine is None:
            return
        engine.send_signal(signal.SIGTERM)
        ended = _ended(engine, COMMAND_S)
        _kill(engine)
        assert ended, "the engine did not end on SIGTERM"
        assert engine.returncode == 0, f"the engine ended with {engine.returncode} on SIGTERM"

    def close(self) -> None:
        """End what was left running."""
        for process in self.others:
            _kill(process)
        self.stop_engine()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


def _with_code() -> list[Path]:
    return [path for path in DOCUMENTS if any(b.language in RUN and not b.not_run for b in blocks(path))]


@pytest.mark.parametrize("document", _with_code(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_code_of_the_document_runs(document: Path, terminal: Terminal) -> None:
    for block in blocks(document):
        if block.language in RUN and not block.not_run:
            terminal.run(block)


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md"])
def test_what_is_read_first_needs_no_scroll_bar(name: str) -> None:
    wide = [line for b in blocks(ROOT / name) for line in b.text.splitlines() if len(line) > WIDE_CHARS]
    assert wide == []


def test_picture_and_code_stand_side_by_side() -> None:
    picture, code, *_ = (max(map(len, b.text.splitlines())) for b in blocks(ROOT / "README.md"))
    assert picture + code <= FIRST_SCREEN_CHARS


def test_how_long_a_takeover_takes_is_said_alike_everywhere() -> None:
    measured = re.search(
        r"SIGKILL / SIGTERM \| \| (?P<killed>[\d.–]+ s) / (?P<stopped>[\d.–]+ s)",
        (ROOT / "README.md").read_text(),
    )
    assert measured
    for name in ("docs/kafka.md", "docs/operations.md"):
        text = (ROOT / name).read_text()
        assert measured["killed"] in text, name
        assert measured["stopped"] in text, name


def test_the_lines_to_read_are_as_many_as_is_said() -> None:
    order = (ROOT / "docs/architecture.md").read_text().partition("## Reading order")[2]
    said = re.search(r"About ([\d,]+) lines", order)
    files = re.findall(r"`(orchestrator/[\w/]+\.py)`", order)
    lines = sum(len((ROOT / file).read_text().splitlines()) for file in files)
    assert said
    assert len(files) > 5
    assert lines == pytest.approx(int(said[1].replace(",", "")), rel=0.1)


def test_hardly_any_block_is_left_out() -> None:
    left_out = [f"{path.name}: {b.not_run}" for path in DOCUMENTS for b in blocks(path) if b.not_run]
    assert len(left_out) <= NOT_RUN, left_out


def _document(folder: Path, text: str) -> list[Block]:
    (folder / "document.md").write_text(text)
    return list(blocks(folder / "document.md"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```python\nraise ValueError('no')\n```", "ValueError: no"),
        ("```bash\nfalse\ntrue\n```", "exit code 1"),
        ("```console\n$ echo one\ntwo\n```", "one"),
        ("```console\n$ echo one\none\n$ no-such-command\n```", "no-such-command"),
    ],
)
def test_a_wrong_block_is_noticed(text: str, reason: str, tmp_path: Path, terminal: Terminal) -> None:
    with pytest.raises(AssertionError, match=reason):
        terminal.run(_document(tmp_path, text)[0])


def test_a_console_shows_commands_and_what_they_print(tmp_path: Path, terminal: Terminal) -> None:
    console = "```console\n$ echo one \\\n    two\none ...\n$ touch made\n```\n"
    first, second = _document(tmp_path, console + "<!-- not run: why -->\n```bash\nx\n```\n")
    terminal.run(first)
    assert (tmp_path / "made").exists()
    assert second.not_run == "why"


def test_a_block_needs_a_language(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"document.md:1: a block is one of bash, console, python"):
        _document(tmp_path, "```\nx\n```\n")


def test_the_name_of_a_file_is_there_to_be_read(tmp_path: Path) -> None:
    file = '```python title="shop.py"\n```\n'
    assert _document(tmp_path, f"`shop.py`:\n\n{file}")[0].title == "shop.py"
    with pytest.raises(ValueError, match=r"document.md:3: readers do not see a title; name `shop.py`"):
        _document(tmp_path, f"A shop:\n\n{file}")
