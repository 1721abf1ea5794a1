"""A TCP proxy between clients and a broker, which loses, holds, delays and cuts as it is told.

It knows the frames of Kafka's protocol, so a rule is about one kind of request, one client, or both::

    with proxy.rule(Side.RESPONSE, Fault.CUT, api=Api.PRODUCE, times=1) as lost:
        produce()
        lost.wait()         # now the broker has written it, and the client does not know
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, IntEnum
from typing import Self

from tests.kafka.broker import HOST, Proxied

WAIT_S = 30.0
"""For what should happen at once; a test that waits longer has failed."""

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""One frame per direction and connection is in memory; what sends larger ones does not speak Kafka."""


class Api(IntEnum):
    """Kinds of requests, by Kafka's numbers."""

    PRODUCE = 0
    FETCH = 1
    LIST_OFFSETS = 2
    METADATA = 3
    OFFSET_COMMIT = 8
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    SYNC_GROUP = 14
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    END_TXN = 26


class Side(Enum):
    """Which way a frame goes. A request that is lost was never decided; a response is lost after it was."""

    REQUEST = "request"
    RESPONSE = "response"


class Fault(Enum):
    """What happens to a frame. Those behind it on its connection, of the same side, keep their order."""

    DROP = "drop"
    """It is lost; the connection stays."""
    CUT = "cut"
    """It is lost, and its connection ends."""
    HOLD = "hold"
    """It waits until the rule ends, and all behind it wait with it."""
    DELAY = "delay"
    """It waits for the rule's ``delay_s``, and all behind it wait with it."""


class Rule:
    """What to do with which frames, until :meth:`end`."""

    def __init__(
        self, side: Side, fault: Fault, *, api: Api | None, client: str, times: int | None, delay_s: float
    ) -> None:
        self.side, self.fault, self.delay_s = side, fault, delay_s
        self._api, self._client, self._times = api, client, times
        self._changed = threading.Condition()
        self._hits = 0
        self._ended = False

    def take(self, side: Side, api: int, client: str) -> bool:
        """Whether the frame is meant; it then counts as hit."""
        with self._changed:
            meant = side is self.side and self._api in (None, api) and self._client in ("", client)
            if not meant or self._ended or self._hits == self._times:
                return False
            self._hits += 1
            self._changed.notify_all()
            return True

    def wait(self, hits: int = 1) -> None:
        """Wait until so many frames were hit."""
        self._until(lambda: self._hits >= hits, WAIT_S)

    def wait_ended(self, timeout_s: float) -> None:
        """Wait until the rule ends, or a time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended, timeout_s)

    def end(self) -> None:
        """Let pass what is held and what comes."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _until(self, met: Callable[[], bool], timeout_s: float) -> None:
        with self._changed:
            if not self._changed.wait_for(met, timeout_s):
                raise AssertionError(f"{self._hits} frames were hit within {timeout_s} s, expected more")


class Connection:
    """One client's connection to the broker."""

    def __init__(self, client: socket.socket, broker: socket.socket) -> None:
        self.client_id = ""
        self.asked: dict[int, int] = {}
        """The kinds of requests without a response, by correlation id."""
        self._ends = {Side.REQUEST: (client, broker), Side.RESPONSE: (broker, client)}

    def read(self, side: Side) -> bytes:
        """The next frame; empty at the end."""
        source = self._ends[side][0]
        head = _read_exactly(source, 4)
        if not head:
            return b""
        size = int.from_bytes(head, "big")
        if size > MAX_FRAME_BYTES:
            raise OSError(f"a frame of {size} bytes")
        return head + _read_exactly(source, size)

    def write(self, side: Side, frame: bytes) -> None:
        """Pass a frame on."""
        self._ends[side][1].sendall(frame)

    def kind_of(self, side: Side, frame: bytes) -> int:
        """The kind of request that a frame is, or answers; notes who the client is."""
        if side is Side.RESPONSE:
            return self.asked.pop(int.from_bytes(frame[4:8], "big"), -1)
        api, _, correlation, length = struct.unpack_from(">hhih", frame, 4)
        self.client_id = frame[14 : 14 + max(length, 0)].decode()
        self.asked[correlation & 0xFFFFFFFF] = api
        return int(api)

    def cut(self) -> None:
        """End it, in both directions."""
        for end in self._ends[Side.REQUEST]:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Release what it holds."""
        for end in self._ends[Side.REQUEST]:
            end.close()


def _read_exactly(source: socket.socket, size: int) -> bytes:
    """So many bytes; empty if the other end has gone."""
    data = bytearray()
    while len(data) < size:
        more = source.recv(min(size - len(data), 1 << 16))
        if not more:
            return b""
        data += more
    return bytes(data)


class Proxy:
    """Stands where a broker's listener is advertised. A context manager; it starts at once.

    While ``refusing`` is set, new connections end at once, as if the broker were away.
    """

    def __init__(self, listener: Proxied) -> None:
        self.bootstrap = f"{HOST}:{listener.advertised}"
        self.refusing = False
        self.accepted = 0
        """Connections so far."""
        self._broker = (HOST, listener.port)
        self._rules: list[Rule] = []
        self._connections: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server((HOST, listener.advertised))
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def rule(
        self,
        side: Side,
        fault: Fault,
        *,
        api: Api | None = None,
        client: str = "",
        times: int | None = None,
        delay_s: float = 0.0,
    ) -> Iterator[Rule]:
        """Do that to frames of this side, until the end of the block; the first rule that fits counts.

        Args:
            side: of the connection.
            fault: what happens to them.
            api: only to this kind of request, or the responses to it.
            client: only to those of the client with this ``client.id``.
            times: only to so many.
            delay_s: of ``Fault.DELAY``.
        """
        rule = Rule(side, fault, api=api, client=client, times=times, delay_s=delay_s)
        self._rules.append(rule)
        try:
            yield rule
        finally:
            rule.end()
            self._rules.remove(rule)

    def cut(self, client: str = "") -> None:
        """End all connections, or those of one client."""
        for connection in list(self._connections):
            if client in ("", connection.client_id):
                connection.cut()

    def close(self) -> None:
        """End everything, and wait for it."""
        self.refusing = True
        for rule in list(self._rules):
            rule.end()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(WAIT_S)  # from now on there are no new ones
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(WAIT_S)

    def _start(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True, name="kafka-proxy")
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                try:
                    if self.refusing:
                        raise OSError("refused")
                    broker = socket.create_connection(self._broker, WAIT_S)
                except OSError:
                    client.close()
                    continue
                self._connect(client, broker)

    def _connect(self, client: socket.socket, broker: socket.socket) -> None:
        for end in (client, broker):
            end.settimeout(None)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(client, broker)
        self._connections.add(connection)
        requests = self._start(self._pump, connection, Side.REQUEST)
        self._start(self._answer, connection, requests)

    def _answer(self, connection: Connection, requests: threading.Thread) -> None:
        self._pump(connection, Side.RESPONSE)
        requests.join()
        connection.close()
        self._connections.discard(connection)

    def _pump(self, connection: Connection, side: Side) -> None:
        """Pass frames on, one after the other, until the connection ends."""
        with suppress(OSError):
            while frame := connection.read(side):
                kind = connection.kind_of(side, frame)
                rules = [rule for rule in self._rules if rule.take(side, kind, connection.client_id)][:1]
                if not rules or _FAULTS[rules[0].fault](rules[0], connection):
                    connection.write(side, frame)
        connection.cut()


def _hold(rule: Rule, _: Connection) -> bool:
    rule.wait_ended(WAIT_S)
    return True


def _delay(rule: Rule, _: Connection) -> bool:
    rule.wait_ended(rule.delay_s)
    return True


def _drop(_: Rule, __: Connection) -> bool:
    return False


def _cut(_: Rule, connection: Connection) -> bool:
    connection.cut()
    return False


_FAULTS: dict[Fault, Callable[[Rule, Connection], bool]] = {
    Fault.DROP: _drop,
    Fault.CUT: _cut,
    Fault.HOLD: _hold,
    Fault.DELAY: _delay,
}
"""What a fault does; whether the frame is passed on after it."""
