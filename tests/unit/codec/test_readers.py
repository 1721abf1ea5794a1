"""The generated readers: right on what is usual, and silent about nothing else."""

from __future__ import annotations

import pytest
from msgspec import inspect

from orchestrator.codec import avro
from orchestrator.codec.readers import ReaderCompiler
from orchestrator.codec.writers import WriterCompiler
from orchestrator.protocol.commands import Command, SignalWorkflow
from orchestrator.protocol.events import ActivityScheduled, TimerFired
from orchestrator.protocol.records import Marks, Position
from orchestrator.protocol.tasks import ActivityTask
from orchestrator.protocol.values import Payload, RetryPolicy

SIGNAL = SignalWorkflow(
    workflow_id="w", signal_name="s", input=(Payload(data=b"1", metadata={"a": "b"}),), headers={"h": "i"}
)
READ = ReaderCompiler().root(inspect.type_info(Command))


def written(signal: SignalWorkflow) -> bytes:
    pieces: list[bytes] = []
    WriterCompiler().root(inspect.type_info(Command))[SignalWorkflow](signal, pieces)
    return b"".join(pieces)


def test_what_was_written_is_read() -> None:
    data = written(SIGNAL)
    assert READ(data, 0) == (SIGNAL, len(data))


def test_every_truncation_is_noticed() -> None:
    """Either the reader raises, or it does not end where the bytes end."""
    data = written(SIGNAL)
    for length in range(len(data)):
        cut = data[:length]
        try:
            _, end = READ(cut, 0)
        except Exception:
            continue
        assert end != len(cut)


@pytest.mark.parametrize(
    "data",
    [
        b"\x63",  # a place in the union that is not there
        b"\x01",  # a negative one
        b"\x02\x01",  # a text of negative length
        b"\x02" + b"\xff" * 12,  # a length without an end
        b"\x02\x02\xff",  # text that is no UTF-8
    ],
)
def test_damage_is_raised(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        READ(data, 0)


def test_what_the_fast_reader_does_not_take_is_said_by_the_slow_one() -> None:
    data = avro.encode(SIGNAL)
    with pytest.raises(avro.DecodeError, match=r"no record of commands|left over"):
        avro.decode(data[:-1])
    with pytest.raises(avro.DecodeError, match="left over"):
        avro.decode(data + b"\x00")


def test_an_integer_of_more_than_64_bits_is_not_read_as_one_that_nobody_can_write() -> None:
    """Ten bytes could hold 70 of them; other readers drop what is too much."""
    written = avro.encode(Position(epoch=1, seq=1, marks=Marks(), sent_through=2**62, time_ms=0))
    assert written.count(b"\x80" * 9 + b"\x01") == 1
    found = avro.decode(written.replace(b"\x80" * 9 + b"\x01", b"\x80" * 9 + b"\x03"))
    assert avro.decode(avro.encode(found)) == found


def test_times_are_read_right_however_many_there_are() -> None:
    times = [1_800_000_000_000 + number for number in range(3_000)]
    for time_ms in [*times, *times]:
        task = ActivityTask(
            worker="w",
            workflow_id="w",
            run_id="r",
            workflow_type="t",
            activity_id=1,
            activity_type="a",
            task_queue="q",
            attempt=1,
            dispatch=1,
            scheduled_time_ms=time_ms,
            dispatched_time_ms=-time_ms,
        )
        assert avro.decode(avro.encode(task)) == task


@pytest.mark.parametrize("policy", [RetryPolicy(), RetryPolicy(maximum_attempts=1)])
def test_a_struct_is_read_whether_it_is_the_default_one_or_not(policy: RetryPolicy) -> None:
    event = ActivityScheduled(activity_id=1, activity_type="a", task_queue="q", retry_policy=policy, inbox=7)
    pieces: list[bytes] = []
    info = inspect.type_info(ActivityScheduled | TimerFired)
    WriterCompiler().root(info)[ActivityScheduled](event, pieces)
    data = b"".join(pieces)
    assert ReaderCompiler().root(info)(data, 0) == (event, len(data))
