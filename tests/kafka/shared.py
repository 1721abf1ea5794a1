"""One broker for all test processes of a session: found or started by whoever needs it first.

Looked for in this order: ``KAFKA_BOOTSTRAP``, docker compose if a daemon answers, the jars. What was
started is ended when nobody uses it any more. The kernel counts the users: each holds a shared lock on a
file, and a *keeper* process waits for the exclusive one. So a user that is killed counts no more.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import msgspec
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from pytest_docker.plugin import get_docker_services

from tests.kafka.broker import START_S, Broker, Proxied, free_ports
from tests.kafka.jars import NoBroker

PROXIED = 8
"""Listeners for proxies: one for each test process, of which there are at most so many (see Makefile)."""

COMPOSE = Path(__file__).with_name("docker-compose.yml")

ANSWER_S = 10
"""A broker that somebody else runs is there, or it is not."""

GOODBYE_S = 5
"""The keeper ends a broker in less; others may still use it."""


class Shared(msgspec.Struct, frozen=True):
    """A broker that tests share; each uses a namespace of its own. ``secured_bootstrap`` may be empty."""

    bootstrap: str
    secured_bootstrap: str = ""
    proxied: tuple[Proxied, ...] = ()


@contextmanager
def shared_broker(folder: Path) -> Iterator[Shared]:
    """The broker of all who name the same folder.

    Raises:
        NoBroker: there is none, and none can be started; says why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = folder / "broker.json"
    keeper = None
    with ExitStack() as stack:
        with _locked(folder / "starting", fcntl.LOCK_EX):
            stack.enter_context(_locked(folder / "users", fcntl.LOCK_SH))
            if not found.exists():
                keeper = _start_keeper(folder)
        yield msgspec.json.decode(found.read_bytes(), type=Shared)
    if keeper is not None:
        try:
            keeper.wait(GOODBYE_S)
        except subprocess.TimeoutExpired:
            _unended.append(keeper)


_unended: list[subprocess.Popen[str]] = []
"""Keepers that others still need: an object that is dropped before its process has ended is a warning."""


@contextmanager
def _locked(path: Path, kind: int) -> Iterator[IO[str]]:
    with path.open("a") as file:
        fcntl.flock(file, kind)
        yield file


def _start_keeper(folder: Path) -> subprocess.Popen[str]:
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.kafka.shared", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
        start_new_session=True,  # Ctrl-C is for the tests; the keeper sees that they are gone
    )
    assert keeper.stdout is not None
    with keeper.stdout as said:
        complaint = said.read()
    if complaint:
        keeper.wait()
        raise NoBroker(complaint.strip())
    return keeper


# ------------------------------------------------------------------------------------------ the keeper


def keep(folder: Path) -> None:
    """Run a broker until nobody uses it any more."""
    with ExitStack() as stack:
        try:
            shared = _find(folder, stack)
        except NoBroker as error:
            print(error, flush=True)
            return
        except Exception as error:  # to be told by the test that waits for a broker
            print(f"{type(error).__name__}: {error}", flush=True)
            return
        (folder / "broker.json").write_bytes(msgspec.json.encode(shared))
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the end of what is said: it is ready
        stack.enter_context(_locked(folder / "users", fcntl.LOCK_EX))
        (folder / "broker.json").unlink()


def _find(folder: Path, stack: ExitStack) -> Shared:
    bootstrap = os.environ.get("KAFKA_BOOTSTRAP")
    if bootstrap:
        _ask(bootstrap, ANSWER_S)
        return Shared(bootstrap)
    if _docker_answers():
        return Shared(_compose(stack))
    broker = Broker(folder / "broker", proxied=PROXIED)
    broker.start()
    stack.callback(shutil.rmtree, broker.folder, ignore_errors=True)
    stack.callback(broker.kill)
    return Shared(broker.bootstrap, broker.secured_bootstrap, broker.proxied)


def _ask(bootstrap: str, timeout_s: float) -> None:
    try:
        AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=timeout_s)
    except KafkaException as error:
        raise NoBroker(
            f"no Kafka answers at {bootstrap} within {timeout_s} s: {error.args[0].str()}"
        ) from error


def _docker_answers() -> bool:
    """Whether there is a daemon, and ``docker compose`` to talk to it."""
    if shutil.which("docker") is None:
        return False
    commands = (["docker", "info"], ["docker", "compose", "version"])
    try:
        done = [subprocess.run(command, capture_output=True, timeout=20, check=False) for command in commands]
    except subprocess.TimeoutExpired:
        return False
    return all(one.returncode == 0 for one in done)


def _compose(stack: ExitStack) -> str:
    port = free_ports(1)[0]
    os.environ["KAFKA_PORT"] = str(port)
    services = get_docker_services(
        "docker compose",
        str(COMPOSE),
        f"kafka-orchestrator-{os.getpid()}",
        ["up --wait"],
        ["down -v"],
    )
    stack.enter_context(services)
    bootstrap = f"127.0.0.1:{port}"
    _ask(bootstrap, START_S)
    return bootstrap


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
