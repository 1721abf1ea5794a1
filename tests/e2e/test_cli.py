"""The command line against a running engine: what it prints, and how it exits."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

import httpx
import msgspec
import pytest

from orchestrator import cli
from orchestrator.cli import help, output
from orchestrator.protocol.views import History
from tests.e2e.dev_process import COMMAND, TIMEOUT_S, Dev, command, write_modules


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    write_modules(folder)
    (folder / "broken.py").write_text("import activities\n\nactivities.missing\n")
    (folder / "twice.py").write_text(
        "from orchestrator import workflow\n@workflow.defn(name='Greeting')\nclass Other:\n"
        "    @workflow.run\n    async def run(self): ...\n"
    )
    (folder / "no-list.json").write_text("{}")
    (folder / "large.json").write_text(json.dumps(["x" * 300_000]))
    (folder / "file").write_text("")
    return folder


@pytest.fixture(scope="module")
def dev(folder: Path) -> Iterator[Dev]:
    running = Dev(folder)
    yield running
    running.close()


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(folder: Path, dev: Dev, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command in this process, which takes a tenth of the time that one of its own would."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ORCHESTRATOR_ADDRESS", dev.address)
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = cli.run(arguments)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


def ok(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_workflow_from_start_to_history(run: Run) -> None:
    started = ok(run("workflow", "start", "Greeting", "--id", "w", "-i", '"Ann"', "-i", "1", "-o", "json"))
    run_id = json.loads(started)[0]["run_id"]
    assert run("workflow", "result", "w", "--timeout", "0").returncode == 124
    assert "Status       Running" in ok(run("workflow", "describe", "w")).splitlines()
    assert ok(run("workflow", "query", "w", "count")) == "0\n"
    ok(run("workflow", "signal", "w", "add", "--input", '"Bob"'))
    assert ok(run("workflow", "result", "w")) == '"hello Ann and Bob"\n'
    assert json.loads(ok(run("workflow", "result", "w", "-o", "json")))["run_id"] == run_id

    described = json.loads(ok(run("workflow", "describe", "w", "-o", "json")))
    assert described["row"]["status"] == "Completed"
    assert described["result"] == "hello Ann and Bob"
    exported = ok(run("workflow", "show", "w", "-o", "json"))
    history = msgspec.json.decode(exported, type=History)
    assert history.run_id == run_id
    assert len(ok(run("workflow", "show", "w", "-o", "jsonl")).splitlines()) == len(history.turns)
    shown = ok(run("workflow", "show", "w")).splitlines()
    assert len(shown) == 1 + described["row"]["history_events"]
    assert "WorkflowStarted" in shown[1]
    assert 'input=["Ann", 1]' in shown[1]


def test_lists_in_every_format(run: Run) -> None:
    long_id = "list-" + "x" * 200
    ids = ["list-2", "list-1", long_id]
    for id in reversed(ids):
        ok(run("workflow", "start", "Greeting", "--id", id, "--input-file", "-", stdin='["bad"]'))
        assert run("workflow", "result", id).returncode == 5

    def listed(*arguments: str) -> str:
        return ok(run("workflow", "list", "--id-prefix", "list-", *arguments))

    assert listed("-o", "ids").splitlines() == ids
    assert [row["workflow_id"] for row in json.loads(listed("-o", "json"))] == ids
    assert [json.loads(line)["status"] for line in listed("-o", "jsonl").splitlines()] == ["Failed"] * 3
    table = listed().splitlines()
    assert table[0].split()[:2] == ["STATUS", "TYPE"]
    assert long_id in table[3], "nothing is cut off when stdout is no terminal"
    assert "no such person" in table[1]
    assert listed("--limit", "1", "-o", "ids").splitlines() == ids[:1]
    assert listed("--status", "Running", "-o", "ids") == ""
    assert "\x1b" not in listed()


PRINTING = {
    ("workflow", "start"): ("Greeting", "--id", "printed-2", "-i", '"bad"'),
    ("workflow", "result"): ("printed",),
    ("workflow", "query"): ("printed", "count"),
    ("workflow", "stack"): ("printed",),
    ("workflow", "describe"): ("printed",),
    ("workflow", "show"): ("printed",),
    ("workflow", "list"): (),
    ("workflow", "count"): (),
    ("queue", "list"): (),
    ("failures",): (),
    ("stuck",): ("--attempts", "1", "--waiting", "0"),
    ("cluster",): (),
    ("doctor",): (),
}
"""Every command that takes ``-o``, with what else it needs; those of topics need a broker."""


@pytest.mark.parametrize("words", PRINTING, ids=" ".join)
def test_every_command_prints_in_every_format(run: Run, words: tuple[str, ...]) -> None:
    ok(run("workflow", "start", "Greeting", "--id", "failed-0", "-i", '"bad"'))
    if words != ("workflow", "start"):
        run("workflow", "terminate", "printed")
        ok(run("workflow", "start", "Greeting", "--id", "printed", "-i", '"Ann"', "-i", "1"))
        if words == ("workflow", "result"):
            ok(run("workflow", "signal", "printed", "add", "-i", '"Bob"'))
    for format in get_args(output.Format):
        done = run(*words, *PRINTING[words], "-o", format)
        assert done.returncode in (0, 5), (format, done.stderr)
        assert "Traceback" not in done.stderr, format
        if format == "json":
            json.loads(done.stdout)
        if format == "jsonl":
            assert all(json.loads(line) is not None for line in done.stdout.splitlines())
        if format == "ids":
            ids = done.stdout.splitlines()
            assert len(set(ids)) == len(ids), ids


def test_no_command_that_prints_was_forgotten() -> None:
    printing = {words for words in cli.commands() if " --output -o " in help.ready(words)}
    assert {words for words in printing if words[0] != "topic"} == PRINTING.keys()


def test_the_doctor_finds_nothing_where_all_is_well(run: Run) -> None:
    found: list[dict[str, str]] = []
    deadline_s = time.monotonic() + TIMEOUT_S
    # Who has just begun, or has much else to do, may not have been heard of for a moment.
    while {one["state"] for one in found} != {"ok"}:
        assert time.monotonic() < deadline_s, found
        found = json.loads(ok(run("doctor", "-o", "json")))
    assert {"ready", "coordinators", "workers", "blocked runs"} <= {finding["what"] for finding in found}


def beginning(dev: Dev, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command that goes on, in a process of its own."""
    return subprocess.Popen(
        [*COMMAND, *arguments, "--address", dev.address],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_run_is_followed_to_its_close(run: Run, dev: Dev, folder: Path) -> None:
    ok(run("workflow", "start", "Greeting", "--id", "followed", "-i", '"Ann"', "-i", "1"))
    with beginning(dev, folder, "workflow", "show", "followed", "--follow") as following:
        assert following.stdout is not None
        assert following.stderr is not None
        assert following.stdout.readline().split()[0::3][:2] == ["1", "WorkflowStarted"]
        ok(run("workflow", "signal", "followed", "add", "-i", '"Bob"'))
        # `communicate` would lose the lines that came with the first one.
        rest, errors = following.stdout.read(), following.stderr.read()
    assert (following.returncode, errors) == (0, "")
    assert rest.splitlines()[-1].split()[3] == "WorkflowCompleted"
    assert [int(line.split()[0]) for line in rest.splitlines()] == list(range(2, rest.count("\n") + 2))
    turns = ok(run("workflow", "show", "followed", "--follow", "-o", "jsonl")).splitlines()
    assert [json.loads(turn)["turn"] for turn in turns] == list(range(1, len(turns) + 1))
    refused = run("workflow", "show", "followed", "--follow", "-o", "json")
    assert (refused.returncode, refused.stdout) == (2, "")


def test_what_is_watched_is_shown_again_until_ctrl_c(run: Run, dev: Dev, folder: Path) -> None:
    watched = ("workflow", "list", "--id-prefix", "watched", "-o", "ids", "--watch", "--interval", "0.1")
    ok(run("workflow", "start", "Greeting", "--id", "watched-1", "-i", '"bad"'))
    with beginning(dev, folder, *watched) as watching:
        assert watching.stdout is not None
        assert [watching.stdout.readline() for _ in range(2)] == ["watched-1\n", "\n"]
        ok(run("workflow", "start", "Greeting", "--id", "watched-2", "-i", '"bad"'))
        while watching.stdout.readline() != "watched-2\n":
            pass
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=TIMEOUT_S)
    assert (watching.returncode, errors) == (130, "")


def test_what_is_wrong_is_found_without_knowing_where_to_look(run: Run) -> None:
    """Failures lead to a group, the group to its runs; the queue, the workers and what is stuck are shown."""
    for id in ("wrong-1", "wrong-2"):
        ok(run("workflow", "start", "Greeting", "--id", id, "-i", '"bad"'))
        assert run("workflow", "result", id).returncode == 5
    (group,) = json.loads(ok(run("failures", "-o", "json")))
    assert "Unknown: no such person" in ok(run("failures"))
    query = f'FailureGroup = "{group["fingerprint"]}" AND WorkflowId STARTS_WITH "wrong-"'
    assert ok(run("workflow", "list", "-q", query, "-o", "ids")).splitlines() == ["wrong-2", "wrong-1"]
    counted = run("workflow", "count", "-q", query)
    assert ok(counted).splitlines()[1].split() == ["Failed", "Greeting", "2"]
    assert counted.stderr == "2 runs\n"
    assert json.loads(ok(run("workflow", "count", "-q", query, "-o", "json")))["runs"] == 2
    assert ok(run("stuck", "--attempts", "50", "-o", "ids")) == ""
    assert ok(run("queue", "list", "-o", "ids")) == "default\n"
    members = ok(run("cluster")).splitlines()
    assert [line.split()[0] for line in members] == ["ROLE", "coordinator", "worker"]
    assert "partitions 0-3" in members[1]
    whole = json.loads(ok(run("cluster", "-o", "json")))
    assert len(whole["partitions"]) == 4
    lines = [json.loads(line) for line in ok(run("cluster", "-o", "jsonl")).splitlines()]
    assert [line["role"] for line in lines] == ["coordinator", "worker"]
    assert [{*line["beat"]} for line in lines] == [
        {*whole[f"{line['role']}s"][0]["beat"]} for line in lines
    ], "numbers, not words"
    is_one_message(run("workflow", "list", "-q", "Status = 1"), 2, "has Status at column 1")


def test_a_worker_tells_that_its_loop_is_stuck(dev: Dev, folder: Path) -> None:
    """Here it is taken for stuck at once."""
    (folder / "impatient.py").write_text(
        "from orchestrator.cli import process\nfrom activities import *\nprocess.STUCK_AFTER_S = -1\n"
    )
    where = ("--log", dev.address, "--metrics-port", "0")
    command = [*COMMAND, "worker", "impatient", *where]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        address = worker.stdout.readline().split("metrics: ")[1].strip().removesuffix("/metrics")
        answer = httpx.get(f"{address}/live")
        worker.terminate()
    assert answer.status_code == 503
    assert answer.text.startswith("the event loop has not turned for ")


def test_ids_are_read_from_stdin(run: Run) -> None:
    for id in ("stop-1", "stop-2"):
        ok(run("workflow", "start", "Greeting", "--id", id, "-i", '"Ann"', "-i", "1"))
    listed = ok(run("workflow", "list", "--id-prefix", "stop-", "-o", "ids"))
    done = run("workflow", "terminate", "-", "--reason", "a mistake", stdin=listed)
    assert ok(done) == ""
    assert sorted(done.stderr.splitlines()) == ["terminate: stop-1", "terminate: stop-2"]
    ok(run("workflow", "start", "Greeting", "--id", "stop-3", "-i", '"Ann"', "-i", "1"))
    done = run("workflow", "terminate", "-", stdin="stop-1\nnix\nstop-3\n")
    assert (done.returncode, done.stdout) == (1, ""), "the code of the first, and none is left out"
    assert [line.split(" ")[0] for line in done.stderr.splitlines()] == ["error:", "error:", "terminate:"]
    assert "'nix'" in done.stderr
    assert "Terminated" in run("workflow", "result", "stop-1").stderr


def is_one_message(done: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    assert (done.returncode, done.stdout) == (code, ""), (done.args, done.stderr)
    assert done.stderr.startswith("error: "), (done.args, done.stderr)
    assert words in done.stderr, (done.args, done.stderr)
    assert "Traceback" not in done.stderr, done.args
    assert done.stderr.count("\n") == 1, (done.args, done.stderr)


def test_errors_are_one_message_and_an_exit_code(run: Run) -> None:
    ok(run("workflow", "start", "Greeting", "--id", "open", "-i", '"Ann"', "-i", "1"))
    ok(run("workflow", "start", "Greeting", "--id", "failed", "-i", '"bad"'))
    start = ("workflow", "start", "Greeting", "--id")
    table: list[tuple[tuple[str, ...], int, str]] = [
        ((*start, "open"), 1, "workflow id 'open' is in use by the open run"),
        (("workflow", "start", "Nope", "--id", "n"), 4, "no workflow type 'Nope'; known: "),
        ((*start, ""), 2, "the workflow id is empty"),
        (start[:-1], 2, "--id"),
        ((*start, "n", "--input", "Ann"), 2, "is not JSON"),
        ((*start, "n", "--input-file", "nix.json"), 2, "cannot be read"),
        ((*start, "n", "--input-file", "no-list.json"), 2, "holds no list"),
        ((*start, "n", "-i", "1", "--input-file", "no-list.json"), 2, "not by both"),
        ((*start, "n", "--input-file", "large.json"), 1, "at most 262144 bytes"),
        (("workflow", "result", "nix"), 4, "no workflow id 'nix'"),
        (("workflow", "result", "failed"), 5, "did not complete, its status is Failed: Unknown: no such"),
        (("workflow", "result", "open", "--timeout", "0.1"), 124, "still Running after 0.1 s"),
        (("workflow", "signal", "nix", "add"), 4, "nix"),
        (("workflow", "signal", "open", "add"), 1, "takes 1 argument(s), and 0 were given"),
        (("workflow", "signal", "open", "add", "-i", "5"), 1, "Expected `str`, got `int`"),
        (("workflow", "signal", "open", "nope"), 4, "no signal 'nope'; known: add"),
        (("workflow", "query", "open", "nope"), 4, "no query 'nope'"),
        (("workflow", "cancel", "nix"), 4, "nix"),
        (("workflow", "describe", "nix"), 4, "no workflow id 'nix'"),
        (("workflow", "show", "nix"), 4, "no workflow id 'nix'"),
        (("workflow", "list", "--status", "Odd"), 2, "Odd"),
        (("workflow", "list", "--address", "http://127.0.0.1:1"), 1, "no engine answers"),
        (("workflow", "list", "--address", "ftp://x"), 2, "expected one like http://"),
        (("workflow", "list", "-q", "("), 2, "the query"),
        (("workflow", "list", "--limit", "-1"), 2, "--limit is -1; it is at least 0"),
        (("workflow", "result", "open", "--timeout", "-1"), 2, "--timeout is -1; it is at least 0"),
        (("stuck", "--limit", "-3"), 2, "--limit is -3; it is at least 0"),
        (("stuck", "--attempts", "0"), 2, "--attempts is 0; it is at least 1"),
        (("stuck", "--waiting", "-0.5"), 2, "--waiting is -0.5; it is at least 0"),
        (("failures", "--limit", "100000"), 2, "--limit is 100000; it is from 0 to 1,000"),
        (("topic", "create", "--partitions", "0"), 2, "--partitions is 0; it is at least 1"),
        (("topic", "tail", "history", "--limit", "-1"), 2, "--limit is -1; it is at least 0"),
        (("topic", "list"), 2, "which Kafka? Name it with --log"),
        (("workflow", "bogus"), 2, "bogus"),
        (("workflow", "result", "open", "closed"), 2, "there are too many arguments: closed"),
        (("bogus",), 2, "bogus"),
    ]
    for arguments, code, words in table:
        is_one_message(run(*arguments), code, words)


def test_dev_says_in_one_message_why_it_cannot_start(dev: Dev, folder: Path) -> None:
    """What may be wrong with one module, tests/unit/cli/test_modules.py shows."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = str(taken.getsockname()[1])
        table: list[tuple[tuple[str, ...], int, str]] = [
            (("dev", "broken", "--port", "0"), 1, "broken.py, line 3"),
            (("dev", "workflows", "twice", "--port", "0"), 1, "two workflows are named 'Greeting'"),
            (("dev", "workflows", "--port", "0", "--slots", "0"), 2, "--slots is 0; it is at least 1"),
            (("dev", "workflows", "--port", "0", "--retention-days", "0"), 2, "it is above 0 and below"),
            (
                ("dev", "workflows", "--port", busy, "--data", "other"),
                1,
                f"port {busy} on 127.0.0.1 is in use",
            ),
            (("dev", "workflows", "--port", "99999", "--data", "other"), 1, "cannot listen on"),
            (("dev", "workflows", "--port", "0", "--data", "data"), 1, f"process {dev.process.pid}"),
            (("dev", "workflows", "--port", "0", "--data", "file"), 1, "file is a file; choose a folder"),
        ]
        for arguments, code, words in table:
            is_one_message(command(*arguments, folder=folder), code, words)


def test_ctrl_c_while_it_waits_is_an_exit_code_and_no_traceback(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as engine:
        address = f"http://127.0.0.1:{engine.getsockname()[1]}"
        waiting = subprocess.Popen(
            [*COMMAND, "workflow", "result", "w", "--address", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
        )
        with engine.accept()[0]:  # it has asked, and waits for the answer
            waiting.send_signal(signal.SIGINT)
            assert waiting.communicate(timeout=TIMEOUT_S) == (b"", b"")
    assert waiting.returncode == 130


def test_the_package_imports_next_to_nothing() -> None:
    code = (
        "import sys, orchestrator; "
        "heavy = ('fastapi', 'jinja2', 'pydantic', 'rich', 'rocksdict', 'httpx'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
