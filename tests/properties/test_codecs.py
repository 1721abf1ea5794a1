"""Every record round-trips; no bytes can do worse than a DecodeError or a PayloadError."""

from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from orchestrator.codec import avro
from orchestrator.codec.failures import MAX_FAILURE_BYTES, from_failure, to_failure
from orchestrator.codec.payloads import DEFAULT
from orchestrator.codec.schema import TOPICS, is_chain, structs_of, without_none
from orchestrator.errors import ApplicationError, PayloadError
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import Failure, Payload

MAX_ITEMS = 3
MAX_LINKS = 2

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS: dict[type, st.SearchStrategy[Any]] = {
    inspect.IntType: st.integers(-(2**63), 2**63 - 1),
    inspect.FloatType: st.floats(allow_nan=False),
    inspect.BoolType: st.booleans(),
    inspect.StrType: TEXT,
    inspect.BytesType: st.binary(max_size=20),
}


def values(info: inspect.Type) -> st.SearchStrategy[Any]:
    """All values of a type of ours."""
    if type(info) in SCALARS:
        return SCALARS[type(info)]
    if isinstance(info, inspect.EnumType):
        members: list[Enum] = list(info.cls)
        return st.sampled_from(members)
    if isinstance(info, inspect.VarTupleType):
        return st.lists(values(info.item_type), max_size=MAX_ITEMS).map(tuple)
    if isinstance(info, inspect.DictType):
        return st.dictionaries(TEXT, values(info.value_type), max_size=MAX_ITEMS)
    inner = without_none(info)
    if inner is not None:
        return st.none() | values(inner)
    return st.one_of([structs(struct) for struct in structs_of(info)])


def structs(info: inspect.StructType, links: int = MAX_LINKS) -> st.SearchStrategy[Any]:
    """All values of a struct; one that contains itself does so at most ``links`` times."""
    fields = {}
    for field in info.fields:
        if not is_chain(info.cls, field.type):
            fields[field.name] = values(field.type)
        elif links:
            fields[field.name] = st.none() | structs(info, links - 1)
    return st.builds(info.cls, **fields)


KINDS = [struct for record_type in TOPICS.values() for struct in structs_of(inspect.type_info(record_type))]
RECORDS = st.one_of([structs(struct) for struct in KINDS])


@pytest.mark.parametrize("info", KINDS, ids=lambda info: info.cls.__name__)
def test_every_kind_of_record_round_trips(info: inspect.StructType) -> None:
    """By the generated reader and by fastavro, which so is the judge of the generated writer too."""
    plain = avro.AvroCodec()
    plain.__dict__["_fast_readers"] = {}

    @given(structs(info))
    def round_trip(record: Any) -> None:
        data = avro.encode(record)
        topic, read = avro.DEFAULT._fast_readers[data[:5]]
        assert read(data, 5) == (record, len(data))
        assert plain.decode(data, topic) == record

    round_trip()


def survives(data: bytes) -> None:
    """Reading ends by a record, which can be written again, or by a DecodeError."""
    try:
        record = avro.decode(data)
    except avro.DecodeError:
        return
    back = avro.decode(avro.encode(record))
    assert repr(back) == repr(record)  # not ==: hostile floats may be NaN


PREFIXES = st.sampled_from([number.to_bytes(4, "big") for number, _ in avro.DEFAULT.schemas().values()])


@given(PREFIXES, st.binary(max_size=200))
def test_random_bytes_are_survived(number: bytes, rest: bytes) -> None:
    survives(rest)
    survives(b"\x00" + number + rest)


@given(RECORDS, st.data())
def test_damaged_records_are_survived(record: Any, data: st.DataObject) -> None:
    whole = bytearray(avro.encode(record))
    at = data.draw(st.integers(5, len(whole) - 1))
    damaged = data.draw(st.sampled_from(["cut", "flip", "insert"]))
    if damaged == "cut":
        del whole[at:]
    elif damaged == "flip":
        whole[at] ^= data.draw(st.integers(1, 255))
    else:
        whole[at:at] = data.draw(st.binary(min_size=1, max_size=12))
    survives(bytes(whole))


@given(st.binary(max_size=100))
def test_random_commands_are_survived(data: bytes) -> None:
    for command in (data, b"{" + data, b'{"command": ' + data):
        try:
            avro.decode_command(command)
        except avro.DecodeError:
            continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=MAX_ITEMS) | st.dictionaries(TEXT, inner, max_size=MAX_ITEMS),
    max_leaves=10,
)


@given(st.lists(JSON | st.binary(max_size=20), max_size=MAX_ITEMS))
def test_plain_values_round_trip_as_payloads(plain: list[Any]) -> None:
    assert DEFAULT.from_payloads(DEFAULT.to_payloads(plain), []) == plain


@given(
    st.binary(max_size=100),
    st.sampled_from(["json/plain", "binary/plain", "binary/null", "other"]),
    st.sampled_from([None, int, str, list[int], dict[str, float], Failure]),
)
def test_random_payloads_are_survived(data: bytes, encoding: str, hint: Any) -> None:
    try:
        DEFAULT.from_payload(Payload(data=data, encoding=encoding), hint)
    except PayloadError:
        return


@given(
    st.lists(st.tuples(st.text(max_size=3_000), TEXT, st.lists(JSON, max_size=3)), min_size=1, max_size=12)
)
def test_failures_cross_and_are_bounded(told: list[tuple[str, str, list[Any]]]) -> None:
    exc: ApplicationError | None = None
    for message, type_name, details in told:
        outer = ApplicationError(message, *details, type=type_name)
        outer.__cause__ = exc
        exc = outer
    assert exc is not None

    failure = to_failure(exc, DEFAULT)
    data = avro.encode(Reply(client_id="", request_id="", failure=failure))
    back = avro.decode(data).failure

    assert back == failure
    assert len(data) <= MAX_FAILURE_BYTES
    assert to_failure(from_failure(back, DEFAULT), DEFAULT) == failure
    assert list(getattr(from_failure(back, DEFAULT), "details", ())) == told[-1][2]
