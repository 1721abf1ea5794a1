import dataclasses
import datetime
import decimal
import enum
import uuid
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest

from orchestrator.codec.payloads import BINARY_NULL, BINARY_PLAIN, DEFAULT, JSON_PLAIN
from orchestrator.errors import PayloadError
from orchestrator.protocol.values import MAX_PAYLOAD_BYTES, Payload


class Color(enum.Enum):
    RED = "red"


class Model(pydantic.BaseModel):
    when: datetime.datetime
    price: decimal.Decimal = decimal.Decimal("1.50")


@dataclasses.dataclass
class Order:
    number: int
    model: Model | None = None


class Item(msgspec.Struct):
    name: str
    tags: frozenset[str] = frozenset()


class Point(NamedTuple):
    x: int
    y: float


class Options(TypedDict):
    fast: bool


class Text(str):
    pass


WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (None, None),
        (None, int),
        (b"\x00\xff", None),
        (b"\x00\xff", bytes),
        (b"\x00\xff", bytes | None),
        (bytearray(b"abc"), bytearray),
        ({"a": [1, 2.5, "x", None, True]}, None),
        ({"a": 1}, Any),
        ("ä😀", str),
        (2**70, int),
        ([1], object),
        (Order(1, Model(when=WHEN)), Order),
        ([Order(1), Order(2)], list[Order]),
        (Model(when=WHEN), Model),
        ({"m": Model(when=WHEN)}, dict[str, Model]),
        (Item("a", frozenset("xy")), Item),
        (Point(1, 2.5), Point),
        ({"fast": True}, Options),
        ({1, 2, 3}, set[int]),
        ((1, "a"), tuple[int, str]),
        (WHEN, datetime.datetime),
        (datetime.timedelta(seconds=5), datetime.timedelta),
        (uuid.UUID(int=7), uuid.UUID),
        (decimal.Decimal("0.1"), decimal.Decimal),
        (Color.RED, Color),
        ({1: "a"}, dict[int, str]),
        (Text("abc"), Text),
        ([1], Annotated[list[int], ["an unhashable note"]]),
    ],
)
def test_a_value_comes_back_as_its_hint_says(value: object, hint: object) -> None:
    assert DEFAULT.from_payload(DEFAULT.to_payload(value), hint) == value


@pytest.mark.parametrize(
    ("value", "encoding", "data"),
    [
        (None, BINARY_NULL, b""),
        (b"ab", BINARY_PLAIN, b"ab"),
        (memoryview(b"ab"), BINARY_PLAIN, b"ab"),
        ([None, "ä"], JSON_PLAIN, b'[null,"\xc3\xa4"]'),
    ],
)
def test_the_encoding_follows_the_value(value: object, encoding: str, data: bytes) -> None:
    assert DEFAULT.to_payload(value) == Payload(data=data, encoding=encoding)


def test_without_a_hint_plain_types_come_back() -> None:
    payload = DEFAULT.to_payload(Order(1, Model(when=WHEN)))

    assert DEFAULT.from_payload(payload) == {
        "number": 1,
        "model": {"when": "2026-01-02T03:04:05Z", "price": "1.50"},
    }


def test_payloads_without_a_hint_are_plain_and_hints_without_a_payload_are_ignored() -> None:
    payloads = DEFAULT.to_payloads([Color.RED, Color.RED])

    assert DEFAULT.from_payloads(payloads, [Color]) == [Color.RED, "red"]
    assert DEFAULT.from_payloads(payloads[:1], [Color, int]) == [Color.RED]
    assert DEFAULT.from_payloads((), [Color]) == []


def cycle() -> list[Any]:
    itself: list[Any] = []
    itself.append(itself)
    return itself


class Opaque:
    pass


class Explosive(pydantic.BaseModel):
    @pydantic.model_serializer
    def explode(self) -> dict[str, int]:
        raise ZeroDivisionError("bang")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), ["float", "nan", "None or a string"]),
        ([1, {"a": float("-inf")}], ["list", "-inf"]),
        (Order(1, Model.model_construct(when=float("inf"))), ["Order", "inf"]),
        ("\ud800", ["str", "surrogates"]),
        (cycle(), ["list", "refers to itself"]),
        (Opaque(), ["Opaque", "dataclasses"]),
        ({"a": [Opaque()]}, ["Opaque"]),
        (lambda: 1, ["function"]),
        ({(1, 2): 3}, ["tuple"]),
        (10**5_000, ["int", "digits"]),
        (Explosive(), ["Explosive", "bang"]),
    ],
    ids=range(11),
)
def test_what_json_cannot_say_is_refused_by_name(value: object, words: list[str]) -> None:
    with pytest.raises(PayloadError) as error:
        DEFAULT.to_payload(value)

    for word in words:
        assert word in str(error.value)


def test_a_null_among_finite_numbers_is_no_nan() -> None:
    assert DEFAULT.from_payload(DEFAULT.to_payload([None, 1.5, (2.5,)])) == [None, 1.5, [2.5]]


def test_values_together_may_have_the_limit_and_no_byte_more() -> None:
    rest = b"x" * (MAX_PAYLOAD_BYTES - 1)
    assert len(DEFAULT.to_payloads([1, rest])) == 2

    with pytest.raises(
        PayloadError, match=r"262145 bytes, value 2 of 2 is the largest; at most 262144 .* key"
    ):
        DEFAULT.to_payloads([10, rest])
    with pytest.raises(PayloadError, match="has 262145 bytes; at most 262144"):
        DEFAULT.to_payload(rest + b"xx")


HOSTILE = [
    b"",
    b"[1,",
    b"\xff\xfe",
    b'"\\ud800"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 5_000,
    b"1e999",
    b"{}{}",
    b'{"number":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"unknown":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("hint", [None, int, Order, Model, list[Model], Item, Opaque, Text], ids=str)
@pytest.mark.parametrize("encoding", [JSON_PLAIN, BINARY_PLAIN, "json/protobuf", ""])
def test_hostile_bytes_are_a_payload_error(data: bytes, hint: Any, encoding: str) -> None:
    if encoding == BINARY_PLAIN and hint is None:
        return  # any bytes are right
    with pytest.raises(PayloadError):
        DEFAULT.from_payload(Payload(data=data, encoding=encoding), hint)


class Picky(pydantic.BaseModel):
    @pydantic.model_validator(mode="before")
    @classmethod
    def refuse(cls, value: Any) -> Any:
        raise KeyError("not a ValueError")


@pytest.mark.parametrize("hint", [5, "Unknown", Opaque, Picky, list[Picky], list["Unknown"]], ids=str)  # type: ignore[name-defined]  # noqa: F821
def test_a_hint_that_cannot_be_read_is_a_payload_error(hint: Any) -> None:
    with pytest.raises(PayloadError):
        DEFAULT.from_payload(Payload(data=b"[5]"), hint)


def test_the_message_says_what_was_found_and_expected() -> None:
    with pytest.raises(PayloadError, match=r"payload of 3 bytes .* read as int: .*Expected `int`, got `str`"):
        DEFAULT.from_payload(Payload(data=b'"a"'), int)
    with pytest.raises(
        PayloadError, match=r"encoding is 'binary/encrypted', expected one of json/plain.* codec"
    ):
        DEFAULT.from_payload(Payload(data=b"", encoding="binary/encrypted"))
