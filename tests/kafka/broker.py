"""A Kafka broker of one node, as a process of its own. ``python -m tests.kafka.broker`` is `make kafka`."""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.kafka import jars

HOST = "127.0.0.1"
START_S = 90
"""A start takes 2 to 3 s; this is a machine that does much else."""

STOP_S = 20
"""A clean stop takes 1 s."""

PORTS = range(20_000, 32_000)
"""Below the ports that systems give to outgoing connections: none takes the port of a broker that is down."""

USERS = {"alice": "alice-secret", "bob": "bob-secret"}
"""Who may log in on the secured listener (SASL PLAIN), with which password; they have no rights but those
that ACLs give them, or that everybody has where no ACL speaks of a resource."""


CHECKPOINT = "bootstrap.checkpoint"
"""What a new cluster begins with: the features of this version of Kafka."""


class Proxied(NamedTuple):
    """A listener that is advertised at another port: there a proxy has to stand in front of it."""

    port: int
    advertised: int


class BrokerFailed(Exception):
    """The broker does not start; the message ends with its last words."""


class Broker:
    """A broker in a folder. Started again in the same object, it has the same ports and data.

    It ends with the process that started it, however that one ends. ``proxied`` is the number of listeners
    for proxies. ``session_ms``: after a kill, a start takes so long, for the cluster still counts on the one
    before; and a broker that hangs for so long loses its partitions for a moment. ``compiler``: options of
    Java; the default starts with half the CPU time, and is slower under load.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        proxied: int = 0,
        session_ms: int = 9_000,
        compiler: str = "-XX:TieredStopAtLevel=1",
    ) -> None:
        free = free_ports(3 + 2 * proxied)
        self.folder = folder
        self.port = port or free[0]
        self.secured_port, self._controller_port = free[1:3]
        self.proxied = tuple(Proxied(*pair) for pair in zip(free[3::2], free[4::2], strict=True))
        self._session_ms = session_ms
        self._compiler = compiler
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """Where clients connect, without a password; they may do everything."""
        return f"{HOST}:{self.port}"

    @property
    def secured_bootstrap(self) -> str:
        """Where :data:`USERS` connect."""
        return f"{HOST}:{self.secured_port}"

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        if self._process is None:
            raise RuntimeError("the broker is not running")
        return self._process.pid

    @property
    def log(self) -> Path:
        """What the broker says."""
        return self.folder / "broker.log"

    def start(self) -> None:
        """Start, and wait until requests are answered.

        Raises:
            NoBroker: this machine can run none.
            BrokerFailed: it ended, or answers nothing.
        """
        properties = self.folder / "server.properties"
        self.folder.mkdir(parents=True, exist_ok=True)
        properties.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(properties)
        self._process = self._run("kafka.Kafka", str(properties))
        self._guard = guard(self._process.pid)
        self._wait_ready()

    def stop(self) -> None:
        """End it in order; what it has acknowledged is on the disk."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does."""
        self._end(signal.SIGKILL)

    def wait(self) -> None:
        """Wait until it ends by itself."""
        if self._process is not None:
            self._process.wait()

    def pause(self) -> None:
        """Let it answer nothing until :meth:`resume`; connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def _end(self, number: int) -> None:
        """Ending what has ended does nothing."""
        if self._process is None or self._guard is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with suppress(BrokenPipeError):
            self._guard.communicate(b"ended\n")
        self._process = self._guard = None

    def _format(self, properties: Path) -> None:
        """Make the folder of a new cluster. What Kafka's tool writes is kept: it takes as long as a start."""
        kept, data = jars.home() / CHECKPOINT, self.folder / "data"
        if kept.exists():
            data.mkdir(exist_ok=True)
            shutil.copy(kept, data)
            identity = {"version": 1, "node.id": 1, "cluster.id": _new_id(), "directory.id": _new_id()}
            (data / "meta.properties").write_text("".join(f"{n}={v}\n" for n, v in identity.items()))
            return
        tool = self._run("kafka.tools.StorageTool", "format", "-t", _new_id(), "-c", str(properties))
        if tool.wait() != 0:
            raise BrokerFailed(f"the broker's folder cannot be made; {self._last_words()}")
        draft = kept.with_suffix(f".{os.getpid()}")
        shutil.copy(data / CHECKPOINT, draft)
        draft.rename(kept)

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        options = ["-Xmx512m", "-XX:+UseSerialGC", self._compiler]
        options.append(f"-Dlog4j2.configurationFile={Path(__file__).with_name('log4j2.properties')}")
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [jars.java(), *options, "-cp", jars.classpath(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for whoever started it
            )

    def _wait_ready(self) -> None:
        deadline_s = time.monotonic() + START_S
        admin = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
        while time.monotonic() < deadline_s:
            if self._ended_within(0.05):
                raise BrokerFailed(f"the broker ended at once; {self._last_words()}")
            with suppress(OSError, KafkaException), socket.create_connection((HOST, self.port), 1):
                admin.list_topics(timeout=1)
                return
        self.kill()
        raise BrokerFailed(f"the broker answers nothing after {START_S} s; {self._last_words()}")

    def _ended_within(self, seconds: float) -> bool:
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._end(signal.SIGKILL)
        return True

    def _last_words(self) -> str:
        return f"{self.log} ends with:\n{self.log.read_text(errors='replace')[-2_000:]}"

    def _properties(self) -> dict[str, object]:
        ports = {"PLAIN": self.port, "SECURED": self.secured_port}
        ports |= {f"PROXIED{number}": proxied.port for number, proxied in enumerate(self.proxied)}
        advertised = ports | {f"PROXIED{n}": proxied.advertised for n, proxied in enumerate(self.proxied)}
        bound = {**ports, "CONTROLLER": self._controller_port}
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": _listeners(bound),
            "advertised.listeners": _listeners(advertised),
            "listener.security.protocol.map": ",".join(
                f"{name}:{'SASL_PLAINTEXT' if name == 'SECURED' else 'PLAINTEXT'}" for name in bound
            ),
            "listener.name.secured.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.secured.plain.sasl.jaas.config": _jaas(),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
            "super.users": "User:ANONYMOUS",  # everybody on the listeners without a password
            "broker.session.timeout.ms": self._session_ms,
            "broker.heartbeat.interval.ms": self._session_ms // 6,
            "log.dirs": self.folder / "data",
            **{f"listener.name.{name.lower()}.num.network.threads": 1 for name in ports if name != "PLAIN"},
            **SINGLE_NODE,
        }


SINGLE_NODE = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": 0,
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.num.partitions": 4,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
    "share.coordinator.state.topic.num.partitions": 1,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "num.io.threads": 4,
}
"""What differs from a cluster: nothing is replicated, and as little as possible is done in advance."""


def guard(pid: int) -> subprocess.Popen[bytes]:
    """Kill a process when this one is gone: then the pipe ends without a word."""
    return subprocess.Popen(
        ["/bin/sh", "-c", f"read _ || kill -9 {pid}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _new_id() -> str:
    """As Kafka writes its ids."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _listeners(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


def _jaas() -> str:
    users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    return f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"


def free_ports(count: int, *, among: Collection[int] = PORTS) -> list[int]:
    """Ports that nobody listens on now."""
    found: list[int] = []
    for port in random.sample(list(among), len(among)):
        if len(found) == count:
            return found
        with suppress(OSError), socket.create_server((HOST, port)):
            found.append(port)
    raise BrokerFailed(f"there are not {count} free ports among {min(among)} to {max(among)}")


def main() -> int:
    """Run a broker in the foreground until Ctrl-C; its data stays in ``.kafka``."""
    port = int(os.environ.get("KAFKA_PORT") or 9092)
    broker = Broker(Path(".kafka").absolute(), port=port, compiler="-XX:+TieredCompilation")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        socket.create_server((HOST, port)).close()
        broker.start()
        print(f"ready: kafka://{broker.bootstrap}  data and log: {broker.folder}  stop: Ctrl-C", flush=True)
        broker.wait()
        return _say(f"the broker ended by itself; see {broker.log}")
    except KeyboardInterrupt:
        broker.stop()
        return 0
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        return _say(f"cannot listen on port {port}: {why}; choose another with KAFKA_PORT")
    except (jars.NoBroker, BrokerFailed) as error:
        return _say(str(error))


def _say(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
