"""The generated writers: Avro's integers, and what cannot be written."""

from __future__ import annotations

import pytest
from msgspec import inspect

from orchestrator.codec.writers import MAX_CHAIN_LINKS, NotWritable, WriterCompiler, long
from orchestrator.protocol.events import TimerFired
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import Failure, FailureKind


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, b"\x00"),
        (-1, b"\x01"),
        (1, b"\x02"),
        (-64, b"\x7f"),
        (64, b"\x80\x01"),
        (2**63 - 1, b"\xfe" + b"\xff" * 8 + b"\x01"),
        (-(2**63), b"\xff" * 9 + b"\x01"),
    ],
)
def test_integers_are_zigzag_varints(value: int, expected: bytes) -> None:
    assert long(value) == expected


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_an_integer_beyond_64_bits_is_refused(value: int) -> None:
    with pytest.raises(NotWritable, match="64 bits"):
        long(value)


def test_a_chain_that_is_too_long_is_refused() -> None:
    failure = None
    for _ in range(MAX_CHAIN_LINKS + 2):  # the failure itself is no link
        failure = Failure(kind=FailureKind.APPLICATION, message="m", cause=failure)
    write = WriterCompiler().root(inspect.type_info(Reply))[Reply]
    with pytest.raises(NotWritable, match="too long"):
        write(Reply(client_id="c", request_id="r", failure=failure), [])


def test_a_struct_of_another_topic_is_refused_by_name() -> None:
    table = WriterCompiler().root(inspect.type_info(Reply))
    assert list(table) == [Reply]
    assert TimerFired not in table
