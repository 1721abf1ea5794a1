"""Keys of a partition's store: one byte says what a row is; ranges sort as they are read.

====  ==============================================  ===========================================
byte  key                                             value
====  ==============================================  ===========================================
c     (nothing)                                       the checkpoint
i     workflow id                                     run id of its latest run
r     run id                                          state of the run, at some turn
t     run id, turn (8 bytes)                          a turn
o     run id                                          nothing: the run is open
d     workflow id, NUL, request id                    what became of that request
f     workflow id, NUL, request id                    how that request was refused, and until when it counts
y     time (8 bytes), key of such a row               nothing: until when it counts
x     time (8 bytes), run id, kind (1 byte), id (4)   workflow id: a deadline
l     number, inverted (8 bytes)                      a dead letter, newest first (in a store of its own)
p     offset of history (8 bytes)                     a turn whose business events may be unpublished
e     close time (8 bytes), run id                     offset in history of the run's last turn (8 bytes)
g     offset (8 bytes), key in history                nothing: that key is to get a tombstone
====  ==============================================  ===========================================

Indexes, in stores that lists are read from. A *place* is a start time, inverted (8 bytes), and a run id:
runs sort by it as lists show them, newest start first.

====  ==============================================  ===========================================
byte  key                                             value
====  ==============================================  ===========================================
s     place                                           the run's summary
b     status (1 byte), place                          nothing: runs by status
a     workflow type, NUL, status (1 byte), place      nothing: runs by type and status
w     workflow id, NUL, place                         nothing: runs by id
h     fingerprint, NUL, place                         nothing: runs by failure group
j     fingerprint                                     the failure group
n     status (1 byte), workflow type                  how many such runs there are (8 bytes)
q     run id, activity id (4 bytes)                   an activity without a worker, or that failed before
m     minute (8 bytes)                                how many runs started and closed in it
k     run id, turn (8 bytes)                          offset in history of that turn's last record (8 bytes)
====  ==============================================  ===========================================
"""

from __future__ import annotations

import struct

from orchestrator.engine.state import Deadline, DeadlineKind
from orchestrator.protocol.values import WorkflowStatus

CHECKPOINT = b"c"
OPEN = b"o"
STARTS = b"s"
REFUSAL_EXPIRIES = b"y"
DEADLINES = b"x"
LETTERS = b"l"
UNPUBLISHED = b"p"
CLOSES = b"e"
LITTER = b"g"
GROUPS = b"j"
COUNTS = b"n"
PENDING = b"q"
MINUTES = b"m"

RUN_ID_BYTES = 32
"""Run ids are 32 hexadecimal digits, the first of them the time of the start."""

_U64 = struct.Struct(">Q")
_KINDS = tuple(DeadlineKind)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}
_KIND_ID = struct.Struct(">BI")
_U32 = struct.Struct(">I")
_MAX_U64 = 2**64 - 1
"""What a start time is subtracted from, so that later ones sort first."""

PLACE_BYTES = 8 + RUN_ID_BYTES
"""Of a place (see :func:`place`), which ends the key of every index row."""

_STATUSES = tuple(WorkflowStatus)
_STATUS_BYTES = {status: bytes([number]) for number, status in enumerate(_STATUSES)}
"""How keys write a status: by its number, so a new one comes last."""


def latest(workflow_id: str) -> bytes:
    """Row of an id's latest run."""
    return b"i" + workflow_id.encode()


def state(run_id: str) -> bytes:
    """Row of a run's state."""
    return b"r" + run_id.encode()


def turns(run_id: str) -> bytes:
    """Prefix of a run's turns."""
    return b"t" + run_id.encode()


def turn(run_id: str, number: int) -> bytes:
    """Row of one turn."""
    return turns(run_id) + _U64.pack(number)


def open_run(run_id: str) -> bytes:
    """Row that says that a run is open."""
    return OPEN + run_id.encode()


def letter(number: int) -> bytes:
    """Row of a dead letter; numbers grow, newer ones sort first."""
    return LETTERS + _U64.pack(_MAX_U64 - number)


def number_of_letter(key: bytes) -> int:
    """The number in a key of :func:`letter`."""
    (inverted,) = _U64.unpack_from(key, 1)
    return _MAX_U64 - int(inverted)


def request(workflow_id: str, request_id: str) -> bytes:
    """Row of a request that had an effect."""
    return b"d" + workflow_id.encode() + b"\0" + request_id.encode()


def requests(workflow_id: str) -> tuple[bytes, bytes]:
    """The range of an id's rows of :func:`request`."""
    prefix = b"d" + workflow_id.encode()
    return prefix + b"\0", prefix + b"\1"


def refusal(workflow_id: str, request_id: str) -> bytes:
    """Row of a request that was refused."""
    return b"f" + workflow_id.encode() + b"\0" + request_id.encode()


def refusal_expiry(expires_ms: int, refused: bytes) -> bytes:
    """Row of a refusal in the order of expiry; ``refused`` is its key."""
    return REFUSAL_EXPIRIES + _U64.pack(expires_ms) + refused


def parse_refusal_expiry(key: bytes) -> tuple[int, bytes]:
    """The time and the key in a key of :func:`refusal_expiry`."""
    (expires_ms,) = _U64.unpack_from(key, 1)
    return expires_ms, key[9:]


def close(close_time_ms: int, run_id: str) -> bytes:
    """Row of a closed run in the order of closes."""
    return CLOSES + _U64.pack(close_time_ms) + run_id.encode()


def run_of_close(key: bytes) -> str:
    """The run id in a key of :func:`close`."""
    return key[9:].decode()


def closes_until(time_ms: int) -> bytes:
    """The first key above all closes before ``time_ms``."""
    return CLOSES + _U64.pack(max(0, time_ms))


def litter(offset: int, key: bytes) -> bytes:
    """Row of a record of history that counts no longer: its key, and where that was known."""
    return LITTER + _U64.pack(offset) + key


def key_of_litter(row: bytes) -> bytes:
    """The key in history in a key of :func:`litter`."""
    return row[9:]


def pack_offset(offset: int) -> bytes:
    """An offset as a value."""
    return _U64.pack(offset)


def unpack_offset(value: bytes) -> int:
    """The offset in a value."""
    offset: int = _U64.unpack(value)[0]
    return offset


def deadline(run_id: str, due: Deadline) -> bytes:
    """Row of a deadline."""
    return DEADLINES + _U64.pack(due.at_ms) + run_id.encode() + _KIND_ID.pack(_NUMBERS[due.kind], due.id)


def deadlines_until(time_ms: int) -> bytes:
    """The first key above all deadlines before ``time_ms``."""
    return DEADLINES + _U64.pack(time_ms)


def parse_deadline(key: bytes) -> tuple[str, Deadline]:
    """The run id and deadline in a key of :func:`deadline`."""
    (at_ms,) = _U64.unpack_from(key, 1)
    kind, owner = _KIND_ID.unpack_from(key, len(key) - _KIND_ID.size)
    return key[9 : -_KIND_ID.size].decode(), Deadline(at_ms, _KINDS[kind], owner)


def unpublished(offset: int) -> bytes:
    """Row of a turn whose business events may be unpublished."""
    return UNPUBLISHED + _U64.pack(offset)


def parse_unpublished(key: bytes) -> int:
    """The offset in a key of :func:`unpublished`."""
    offset: int = _U64.unpack_from(key, 1)[0]
    return offset


# ---------------------------------------------------------------------------------------- indexes


def place(start_time_ms: int, run_id: str) -> bytes:
    """Where a run stands in lists."""
    return _U64.pack(_MAX_U64 - start_time_ms) + run_id.encode()


def start(start_time_ms: int, run_id: str) -> bytes:
    """Row of a run's summary."""
    return STARTS + place(start_time_ms, run_id)


def by_status(status: WorkflowStatus) -> bytes:
    """Prefix of the runs with a status."""
    return b"b" + _STATUS_BYTES[status]


def by_type(workflow_type: str, status: WorkflowStatus) -> bytes:
    """Prefix of the runs with a type and a status."""
    return b"a" + workflow_type.encode() + b"\0" + _STATUS_BYTES[status]


def by_id(workflow_id: str) -> bytes:
    """Prefix of an id's runs."""
    return b"w" + workflow_id.encode() + b"\0"


def ids_from(prefix: str) -> bytes:
    """Prefix of the runs whose ids begin so."""
    return b"w" + prefix.encode()


def by_group(fingerprint: str) -> bytes:
    """Prefix of the runs in a failure group."""
    return b"h" + fingerprint.encode() + b"\0"


def failure_group(fingerprint: str) -> bytes:
    """Row of a failure group."""
    return GROUPS + fingerprint.encode()


def count(status: WorkflowStatus, workflow_type: str) -> bytes:
    """Row of how many runs there are with a status and a type."""
    return COUNTS + _STATUS_BYTES[status] + workflow_type.encode()


def parse_count(key: bytes) -> tuple[WorkflowStatus, str]:
    """The status and type in a key of :func:`count`."""
    return _STATUSES[key[1]], key[2:].decode()


def minute(number: int) -> bytes:
    """Row of what happened in a minute, by its number since 1970."""
    return MINUTES + _U64.pack(max(0, number))


def number_of_minute(key: bytes) -> int:
    """The minute in a key of :func:`minute`."""
    number: int = _U64.unpack_from(key, 1)[0]
    return number


def pending(run_id: str, activity_id: int | None = None) -> bytes:
    """Row of an activity that does not get on, or prefix of all those of a run."""
    return PENDING + run_id.encode() + (_U32.pack(activity_id) if activity_id is not None else b"")


def offset_of_turn(run_id: str, number: int) -> bytes:
    """Row of where a turn stands in history."""
    return b"k" + run_id.encode() + _U64.pack(number)


def number_of_turn(key: bytes) -> int:
    """The turn in a key of :func:`offset_of_turn`."""
    number: int = _U64.unpack_from(key, len(key) - _U64.size)[0]
    return number


def activity_of_pending(key: bytes) -> int:
    """The activity id in a key of :func:`pending`."""
    activity_id: int = _U32.unpack_from(key, len(key) - _U32.size)[0]
    return activity_id
