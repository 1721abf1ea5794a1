"""From the dictionaries that fastavro reads to structs.

A converter is compiled once per struct and writer's schema: it knows which fields need work, so that the
rest is left to C. Reading follows the *writer's* schema: fields that we do not
have are dropped, fields that the writer did not have take their defaults, an unknown event becomes an
:class:`~orchestrator.protocol.events.UnknownEvent`.

An unknown word of an enum (a newer version's) becomes the field's default, None if it is optional: a
whole history must not become unreadable for one word. Where nothing stands for "not said", in a field
without a default, and in commands, where guessing would do what nobody asked for, it is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, NoReturn

from msgspec import inspect
from msgspec.structs import replace

from orchestrator.codec.schema import (
    PLACEHOLDERS,
    SCALARS,
    Json,
    default_of,
    is_chain,
    structs_of,
    without_none,
)
from orchestrator.codec.writers import MAX_CHAIN_LINKS
from orchestrator.protocol.commands import CommandBase

Convert = Callable[[Any], Any]
"""A conversion of one value. Where None stands for one, the value stays as it is."""

_READABLE: Final[dict[type[inspect.Type], frozenset[str]]] = {
    inspect.IntType: frozenset({"long", "int"}),
    inspect.FloatType: frozenset({"double", "float", "long", "int"}),
    inspect.BoolType: frozenset({"boolean"}),
    inspect.StrType: frozenset({"string", "enum"}),
    inspect.EnumType: frozenset({"string", "enum"}),
    inspect.BytesType: frozenset({"bytes"}),
}
"""Which of a writer's types our scalars can be read from."""

_PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})


class Mismatch(ValueError):
    """A record, a word or a writer's schema is not what our structs, or Avro, can hold."""


def _too_long(links: int) -> Mismatch:
    return Mismatch(f"a chain of {links} causes is too long, at most {MAX_CHAIN_LINKS} are allowed")


class DecoderCompiler:
    """Compiles the way from dictionaries to structs, for one writer's schema."""

    def __init__(self, named: Mapping[str, Json]) -> None:
        """``named``: the writer's records by full name, as ``fastavro.parse_schema`` collects them."""
        self._named = named
        self._records: dict[tuple[type, str], Convert] = {}

    def root(self, info: inspect.Type, writer: Json) -> Convert:
        """The way from what fastavro reads of a topic's record to our struct."""
        if isinstance(writer, list) and len(writer) > 1:
            return self._union(info, writer)
        only = writer[0] if isinstance(writer, list) else writer
        return _Kinds(self._tagged(info, only), None)[self._resolve(only)["name"]]

    def _tagged(self, info: inspect.Type, writer: Json) -> dict[str, Convert]:
        """For each record of the writer's union that we know, by its full name, the way to our struct."""
        ours = {struct.cls.__name__: struct for struct in structs_of(info)}
        theirs = writer if isinstance(writer, list) else [writer]
        records = [self._resolve(branch) for branch in theirs]
        if not all(isinstance(record, dict) and record.get("type") == "record" for record in records):
            raise Mismatch("the writer's schema is no record and no union of records")
        return {
            record["name"]: self._struct(ours[_simple(record["name"])], record)
            for record in records
            if _simple(record["name"]) in ours
        }

    def _struct(self, info: inspect.StructType, writer: Json) -> Convert:
        writer = self._resolve(writer)
        if not isinstance(writer, dict) or writer["type"] != "record":
            raise Mismatch(f"the writer's schema has {writer!r} where a {info.cls.__name__} is expected")
        key = (info.cls, writer["name"])
        known = self._records.get(key)
        if known is None:
            known = self._records[key] = self._record(info, writer)
        return known

    def _record(self, info: inspect.StructType, writer: Json) -> Convert:
        cls = info.cls
        theirs = {field["name"]: field["type"] for field in writer["fields"]}
        work: list[tuple[str, Convert]] = []
        for field in info.fields:
            if field.name not in theirs:
                if field.required:
                    raise Mismatch(f"the writer's record {writer['name']} lacks the field {field.name}")
                continue
            convert = self._field(info, field, theirs[field.name])
            if convert is not None:
                work.append((field.name, convert))
        unknown = tuple(theirs.keys() - {field.name for field in info.fields})

        def decode(fields: dict[str, Any]) -> Any:
            for name, convert in work:
                fields[name] = convert(fields[name])
            for name in unknown:
                del fields[name]
            return cls(**fields)

        return decode

    def _field(self, owner: inspect.StructType, field: inspect.Field, writer: Json) -> Convert | None:
        if is_chain(owner.cls, field.type):
            return self._chain(owner, field.name, writer)
        inner = without_none(field.type)
        enum = inner or field.type
        if not isinstance(enum, inspect.EnumType):
            return self._value(field.type, writer)
        self._expect_scalar(enum, self._inner_writer(writer) if inner else writer)
        words = _Words(enum.cls)
        if inner is None and (field.required or issubclass(owner.cls, CommandBase)):
            return words.__getitem__
        default = None if inner else default_of(field)
        return lambda word: words.get(word, default)

    def _chain(self, owner: inspect.StructType, name: str, writer: Json) -> Convert:
        writer = self._resolve(writer)
        if not isinstance(writer, dict) or writer["type"] != "array":
            raise Mismatch(f"the writer's field {name} is {writer!r}, expected an array of links")
        link = self._struct(owner, writer["items"])

        def decode(items: list[dict[str, Any]]) -> Any:
            if len(items) > MAX_CHAIN_LINKS:
                raise _too_long(len(items))
            whole = None
            for item in reversed(items):
                whole = replace(link(item), **{name: whole})
            return whole

        return decode

    def _value(self, info: inspect.Type, writer: Json) -> Convert | None:
        writer = self._resolve(writer)
        if type(info) in SCALARS:
            self._expect_scalar(info, writer)
            return None
        inner = without_none(info)
        if inner is not None:
            convert = self._value(inner, self._inner_writer(writer))
            return None if convert is None else _unless_none(convert)
        if isinstance(info, inspect.VarTupleType):
            return _each(self._value(info.item_type, self._part(writer, "array", "items"))) or tuple
        if isinstance(info, inspect.DictType):
            return _each_value(self._value(info.value_type, self._part(writer, "map", "values")))
        if isinstance(info, inspect.StructType):
            return self._struct(info, writer)
        return self._union(info, writer)

    def _union(self, info: inspect.Type, writer: Json) -> Convert:
        if not isinstance(writer, list) or len(writer) < 2:
            raise Mismatch(f"the writer's schema has {writer!r} where a union of records is expected")
        table = _Kinds(self._tagged(info, writer), _placeholder(info))
        return lambda pair: table[pair[0]](pair[1])

    def _resolve(self, writer: Json) -> Json:
        if isinstance(writer, str):
            return self._named.get(writer, writer)
        if isinstance(writer, dict) and writer["type"] in _PRIMITIVES:
            return writer["type"]
        return writer

    def _inner_writer(self, writer: Json) -> Json:
        """What a writer's ``["null", X]`` holds; a writer that knows no null wrote plain ``X``."""
        if isinstance(writer, list):
            others = [branch for branch in writer if branch != "null"]
            if len(others) != 1:
                raise Mismatch(f"the writer's schema has the union {writer!r}, expected ['null', X]")
            return self._resolve(others[0])
        return writer

    def _part(self, writer: Json, kind: str, part: str) -> Json:
        if not isinstance(writer, dict) or writer["type"] != kind:
            raise Mismatch(f"the writer's schema has {writer!r} where an Avro {kind} is expected")
        return writer[part]

    def _expect_scalar(self, info: inspect.Type, writer: Json) -> None:
        writer = self._resolve(writer)
        kind = writer["type"] if isinstance(writer, dict) else writer
        if isinstance(kind, list) or kind not in _READABLE[type(info)]:
            raise Mismatch(f"the writer's schema has {writer!r} where {SCALARS[type(info)]} is expected")


class _Kinds(dict[str, Convert]):
    """The readable records of a union by name; for another, the placeholder, if the union has one."""

    def __init__(self, known: Mapping[str, Convert], placeholder: type | None) -> None:
        super().__init__(known)
        self._placeholder = placeholder

    def __missing__(self, name: str) -> Convert:
        placeholder, kind = self._placeholder, _simple(name)
        if placeholder is None:
            raise Mismatch(f"the kind {kind} is unknown here; known are {', '.join(map(_simple, self))}")
        return lambda fields: placeholder(kind=kind)


class _Words(dict[str, Any]):
    """The words of an enum; to index it with another one is an error that names both."""

    def __init__(self, cls: type[Enum]) -> None:
        super().__init__({member.value: member for member in cls})
        self._name = cls.__name__

    def __missing__(self, word: str) -> NoReturn:
        raise Mismatch(f"the word {word!r} is no {self._name}; known are {', '.join(self)}")


def _placeholder(info: inspect.Type) -> type | None:
    types = info.types if isinstance(info, inspect.UnionType) else ()
    structs = [t.cls for t in types if isinstance(t, inspect.StructType)]
    return next((cls for cls in structs if cls in PLACEHOLDERS), None)


def _unless_none(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)


def _each(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda values: tuple([convert(value) for value in values]) if values else ()


def _each_value(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda values: {key: convert(value) for key, value in values.items()}


def _simple(name: str) -> str:
    return name.rpartition(".")[2]
