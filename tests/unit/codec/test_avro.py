from typing import Any

import msgspec
import pytest

from orchestrator.codec import avro
from orchestrator.codec.avro import MAX_RECORD_BYTES, AvroCodec, DecodeError, EncodeError
from orchestrator.codec.schema import TOPICS, derive, schema_id
from orchestrator.codec.structs import MAX_CHAIN_LINKS
from orchestrator.protocol.commands import StartWorkflow, WorkerLost
from orchestrator.protocol.events import ActivityCompleted, TimerFired, UnknownEvent
from orchestrator.protocol.records import Activation, Cause, Claim, Marks, Position, Turn
from orchestrator.protocol.tasks import CancelTask, DeadLetter, Reply
from orchestrator.protocol.values import Failure, FailureKind, IdReusePolicy, Payload

TURN = Turn(
    epoch=3,
    seq=7,
    marks=Marks(commands=12),
    sent_through=100,
    time_ms=1_767_000_000_000,
    workflow_id="order-17",
    run_id="r",
    turn=2,
    first_event_id=5,
    activation=Activation.DONE,
    events=(ActivityCompleted(activity_id=1, result=Payload(data=b"1")), TimerFired(timer_id=1)),
    causes=(Cause(source="commands", offset=11),),
)
START = StartWorkflow(workflow_id="order-17", workflow_type="Order", input=(Payload(data=b"[1]"),))
REPLY = Reply(client_id="c", request_id="q", result=Payload(data=b"1"))


def failure_of(causes: int) -> Failure:
    failure = Failure(kind=FailureKind.APPLICATION, message="root")
    for number in range(causes):
        failure = Failure(kind=FailureKind.ACTIVITY, message=str(number), cause=failure)
    return failure


def test_the_prefix_is_confluents() -> None:
    data = avro.encode(TURN)

    assert data[0] == 0
    assert int.from_bytes(data[1:5], "big") == schema_id(derive("history", TOPICS["history"]))


@pytest.mark.parametrize(
    "record",
    [
        TURN,
        Claim(epoch=1, nonce="n", owner="o", generation=-1, time_ms=1),
        Position(epoch=1, seq=1, marks=Marks(), sent_through=-1, time_ms=1),
        START,
        CancelTask(worker="w", run_id="r", activity_id=1, attempt=1, dispatch=1),
        msgspec.structs.replace(REPLY, failure=failure_of(MAX_CHAIN_LINKS)),
        DeadLetter(topic="t", partition=0, offset=2**63 - 1, reason="r", value=bytes(range(256))),
    ],
    ids=lambda record: type(record).__name__,
)
def test_records_come_back_as_they_were(record: Any) -> None:
    back = avro.decode(avro.encode(record))

    assert back == record
    assert type(back) is type(record)


def test_words_come_back_as_enums_and_arrays_as_tuples() -> None:
    back = avro.decode(avro.encode(TURN))

    assert type(back.activation) is Activation
    assert type(back.events) is tuple
    assert type(back.events[0].result) is Payload


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (5, "int is no record of any topic"),
        (TimerFired(timer_id=1), "TimerFired is no record of any topic"),
        (msgspec.structs.replace(TURN, events=(UnknownEvent(kind="X"),)), "UnknownEvent cannot be written"),
        (msgspec.structs.replace(TURN, epoch=2**63), "does not fit into 64 bits"),
        (msgspec.structs.replace(TURN, run_id="\ud800"), "surrogates"),
        (msgspec.structs.replace(TURN, run_id=None), "NoneType"),
        (msgspec.structs.replace(REPLY, failure=failure_of(MAX_CHAIN_LINKS + 1)), "at most 64"),
    ],
)
def test_what_cannot_be_said_is_an_encode_error(record: Any, words: str) -> None:
    with pytest.raises(EncodeError, match=words):
        avro.encode(record)


def long(number: int) -> bytes:
    """A number as Avro writes it."""
    number = (number << 1) ^ (number >> 63)
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


PREFIX = avro.encode(TURN)[:5]
REPLIES = avro.encode(REPLY)[:5]
COMMANDS = avro.encode(START)[:5]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "found b''"),
        (b"\x00\x00\x00", "id of a schema"),
        (b"{}", "found b'{}'"),
        (b"\x01" + PREFIX[1:], "expected a zero byte"),
        (b"\x00\x00\x00\x00\x07rest", "no schema with the id 7"),
        (b"\x00\xff\xff\xff\xff", "no schema with the id -1"),
        (PREFIX, "end too early"),
        (avro.encode(TURN)[:-1], "end too early"),
        (avro.encode(TURN) + b"\x00", "1 bytes are left over"),
        (PREFIX + long(9), "history"),
        (PREFIX + long(-1), "history"),
        (PREFIX + b"\xff" * 100, "history"),
        (PREFIX + b"\xff" * 1_000_000 + b"\x00", "history"),
        (REPLIES + long(2**50) + b"x", "end too early"),
        (REPLIES + long(-5) + b"xxxx", "end too early"),
        (REPLIES + b"\x02\xff\x00", "UnicodeDecodeError"),
        (REPLIES + b"\x00" * 7 + b"\x00\x00" + long(2**60), "end too early"),
        (COMMANDS + long(0) + long(2**60), "end too early"),
        (b"\x00" * (MAX_RECORD_BYTES + 1), "too large"),
    ],
)
def test_damage_is_a_decode_error(data: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        avro.decode(data)


def array_of(count: int, items: int, one: Any, two: Any) -> bytes:
    """A record with an array that claims ``count`` items; ``one`` and ``two`` differ by one item."""
    one, two = avro.encode(one), avro.encode(two)
    at = next(index for index, byte in enumerate(one) if byte != two[index])
    size = len(two) - len(one)
    item, rest = one[at + 1 : at + 1 + size], one[at + 1 + size :]
    return bytes(one[:at] + long(count) + item * items + rest)


def tagged(*tags: str) -> Reply:
    return msgspec.structs.replace(REPLY, tags=tags)


def failed(causes: int) -> Reply:
    failure = Failure(kind=FailureKind.ACTIVITY, message="m")
    for _ in range(causes):
        failure = msgspec.structs.replace(failure, cause=failure)
    return msgspec.structs.replace(REPLY, failure=failure)


def test_the_bombs_below_are_well_made() -> None:
    assert avro.decode(array_of(3, 3, tagged("x"), tagged("x", "x"))) == tagged("x", "x", "x")
    assert avro.decode(array_of(3, 3, failed(1), failed(2))) == failed(3)


@pytest.mark.parametrize("count", [2**20, 2**62, -(2**40), -(2**62)])
def test_a_count_is_believed_only_as_far_as_there_are_bytes(count: int) -> None:
    with pytest.raises(DecodeError):
        avro.decode(array_of(count, 1, tagged("x"), tagged("x", "x")))


def test_a_bomb_of_causes_is_refused() -> None:
    with pytest.raises(DecodeError, match="a chain of 40000 causes is too long, at most 64"):
        avro.decode(array_of(40_000, 40_000, failed(1), failed(2)))


def test_a_record_of_another_topic_is_refused() -> None:
    assert avro.decode(avro.encode(TURN), "history") == TURN
    with pytest.raises(DecodeError, match="a record of history, expected one of commands"):
        avro.decode(avro.encode(TURN), "commands")
    with pytest.raises(DecodeError, match="a record of history, expected one of commands"):
        avro.decode_command(avro.encode(TURN))


def test_commands_come_in_avro_and_in_json() -> None:
    assert avro.decode_command(avro.encode(START)) == START
    assert avro.decode_command(
        b' \n{"command": "StartWorkflow", "workflow_id": "order-17", "workflow_type": "Order", '
        b'"input": [[1]], "id_reuse_policy": "allow-duplicate"}'
    ) == msgspec.structs.replace(START, id_reuse_policy=IdReusePolicy.ALLOW_DUPLICATE)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "expected a command in Avro"),
        (b"[]", "expected a command in Avro"),
        (b"{}", "command"),
        (b'{"command": "Dance"}', "Dance"),
        (b'{"command": "CancelWorkflow"}', "workflow_id"),
        (b'{"command": "CancelWorkflow", "workflow_id": 7}', "workflow_id"),
        (b'{"command": "CancelWorkflow", "workflow_id": "w", "resaon": "typo"}', "unknown field `resaon`"),
        (b'{"command": "WorkerLost", "worker": "w", "partition": 1}', "Invalid value 'WorkerLost'"),
        (
            b'{"command": "StartWorkflow", "workflow_id": "w", "workflow_type": "T", "run_timeout_ms": 1'
            + b"0" * 18
            + b"9}",
            "does not fit",
        ),
        (b'{"command": "CancelWorkflow", "workflow_id": "\\ud800"}', "JSON is no command"),
        (b'{"command": "CancelWorkflow", "workflow_id": "w"} {}', "trailing"),
        (b'{"x":' * 100_000, "nested too deeply"),
        (
            b'{"command": "CancelWorkflow", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
            "JSON is no command",
        ),
        (b"{" + b" " * MAX_RECORD_BYTES, "too large"),
    ],
)
def test_json_that_is_no_command_is_a_decode_error(data: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        avro.decode_command(data)


def test_json_that_could_not_be_written_to_history_is_refused() -> None:
    causes = MAX_CHAIN_LINKS + 1
    chain = '{"message": "m", "cause": ' * causes + '{"message": "m"}' + "}" * causes
    data = (
        '{"command": "FailActivity", "workflow_id": "w", "activity_id": 1, "attempt": 1, "dispatch": 1, '
        f'"worker": "w", "failure": {chain}}}'
    )

    with pytest.raises(DecodeError, match="at most 64"):
        avro.decode_command(data.encode())


def test_ids_of_a_registry_are_written_and_our_own_still_read() -> None:
    codec = AvroCodec()
    before = codec.encode(TURN)
    codec.use_ids({str(codec.schemas()["history"][0]): 17, "4711": 18}, "log")

    after = codec.encode(TURN)

    assert after[:5] == b"\x00\x00\x00\x00\x11"
    assert after[5:] == before[5:]
    assert codec.decode(after) == codec.decode(before) == TURN
    assert codec.schemas()["history"][0] == 17
    assert codec.encode(START)[:5] == COMMANDS
    with pytest.raises(DecodeError, match="no schema with the id 17"):
        avro.decode(after)

    codec.use_ids({}, "log")  # somebody changed them, while this codec was in use
    assert codec.encode(TURN) == after
    with pytest.raises(ValueError, match="other ids of schemas already"):
        codec.use_ids({}, "other log")


def test_the_schemas_that_a_codec_tells_of_are_those_it_writes() -> None:
    other = AvroCodec()
    for topic, (number, schema) in avro.DEFAULT.schemas().items():
        assert other.register(schema) == number
        assert schema_id(derive(topic, TOPICS[topic])) == number
    assert other.decode(avro.encode(WorkerLost(worker="w", partition=1))).worker == "w"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("", "JSON"),
        ("5", "schema cannot be used"),
        ("{}", "schema cannot be used"),
        ("[" * 100_000, "nested too deeply"),
        ('{"type": "record", "name": "orchestrator.elsewhere.X", "fields": []}', "expected one of"),
        (
            '{"type": "record", "name": "orchestrator.replies.Reply", "fields": '
            '[{"name": "x", "type": ["null", "Reply"]}]}',
            "contains itself",
        ),
        (
            '{"type": "record", "name": "orchestrator.replies.Reply", "fields": []}',
            "lacks the field client_id",
        ),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused(schema: str, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        AvroCodec().register(schema)
