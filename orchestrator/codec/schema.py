"""Avro schemas, derived from the structs of :mod:`orchestrator.protocol`, which stay the single source.

``python -m orchestrator.codec.schema schemas/`` writes them as files for readers in other languages;
nothing here reads those files. One schema per topic, each complete in itself and in a namespace of its
own (``orchestrator.history``). How types map:

=================== =================================================================================
int, float, bool    long, double, boolean
str, StrEnum        string (an Avro enum could not carry a word that its reader does not know)
bytes               bytes
X | None            ["null", X]
tuple[X, ...]       array
dict[str, X]        map
a struct            a record of the same name, with its docstring and defaults
a tagged union      a union of records
X | None within X   an array of records ``XLink``, nearest first: see below
=================== =================================================================================

A struct that contains itself (the cause of a failure) is written as a flat array. A recursive schema
would let the bytes decide how deep a decoder recurses, and fastavro has no limit: a failure of some
10,000 causes, 200 KB, ends the process by a segmentation fault. Flink and Spark refuse recursive schemas.
"""

from __future__ import annotations

import hashlib
import json
import sys
from enum import Enum
from pathlib import Path
from typing import Any, Final

import msgspec
from fastavro.schema import to_parsing_canonical_form
from msgspec import inspect

from orchestrator.protocol.commands import Command
from orchestrator.protocol.events import UnknownEvent
from orchestrator.protocol.publications import PublishMark
from orchestrator.protocol.records import HistoryRecord
from orchestrator.protocol.tasks import Beat, DeadLetter, Reply, Task

NAMESPACE: Final = "orchestrator"

TOPICS: Final[dict[str, Any]] = {
    "history": HistoryRecord,
    "commands": Command,
    "tasks": Task,
    "workers": Beat,
    "replies": Reply,
    "dead-letters": DeadLetter,
    "published": PublishMark,
}
"""What the records of each topic are: a struct, or a union of tagged structs."""

PLACEHOLDERS: Final[frozenset[type]] = frozenset({UnknownEvent})
"""Structs that stand for what a reader does not know. They are in no schema: nobody can write them."""

SCALARS: Final[dict[type[inspect.Type], str]] = {
    inspect.IntType: "long",
    inspect.FloatType: "double",
    inspect.BoolType: "boolean",
    inspect.StrType: "string",
    inspect.EnumType: "string",
    inspect.BytesType: "bytes",
}

Json = Any
"""A schema, or a part of it, as the Avro specification writes it in JSON."""


def derive(topic: str, record_type: Any) -> Json:
    """The Avro schema of a topic whose records are ``record_type``."""
    return _Derivation(namespace_of(topic)).schema(inspect.type_info(record_type))


def namespace_of(topic: str) -> str:
    """The namespace of a topic's schema."""
    return f"{NAMESPACE}.{topic.replace('-', '_')}"


def schema_id(schema: Json) -> int:
    """The id under which a schema is known where no registry assigned one: positive, 31 bits.

    It is a hash of the canonical form (names, types and order, but no docs and defaults), so everybody
    computes the same id without asking anybody, and equal layouts share one.
    """
    canonical = to_parsing_canonical_form(schema)
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:4], "big") & 0x7FFFFFFF


def structs_of(info: inspect.Type) -> list[inspect.StructType]:
    """The structs of a union (or of the only one), without placeholders; empty if it has none."""
    types = info.types if isinstance(info, inspect.UnionType) else (info,)
    return [t for t in types if isinstance(t, inspect.StructType) and t.cls not in PLACEHOLDERS]


def without_none(info: inspect.Type) -> inspect.Type | None:
    """``X`` if the type is ``X | None``, else None."""
    if isinstance(info, inspect.UnionType) and len(info.types) == 2:
        others = [t for t in info.types if not isinstance(t, inspect.NoneType)]
        if len(others) == 1:
            return others[0]
    return None


def is_chain(owner: type, info: inspect.Type) -> bool:
    """Whether a field of ``owner`` is ``owner | None``, which is written as an array of links."""
    inner = without_none(info)
    return isinstance(inner, inspect.StructType) and inner.cls is owner


def default_of(field: inspect.Field) -> Any:
    """The default value of a field that is not required."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


class _Derivation:
    """Derives one schema. A record is spelled out where it occurs first, and named after that."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._defined: set[str] = set()

    def schema(self, info: inspect.Type) -> Json:
        """The schema of a type."""
        scalar = SCALARS.get(type(info))
        if scalar is not None:
            return scalar
        inner = without_none(info)
        if inner is not None:
            return ["null", self.schema(inner)]
        if isinstance(info, inspect.VarTupleType):
            return {"type": "array", "items": self.schema(info.item_type)}
        if isinstance(info, inspect.DictType) and isinstance(info.key_type, inspect.StrType):
            return {"type": "map", "values": self.schema(info.value_type)}
        if isinstance(info, inspect.StructType):
            return self._record(info, info.cls.__name__)
        if isinstance(info, inspect.UnionType) and structs_of(info):
            return [self.schema(struct) for struct in structs_of(info)]
        raise TypeError(f"there is no Avro type for {info}; see the table in {__name__}")

    def _record(self, info: inspect.StructType, name: str, *, link: bool = False) -> Json:
        full_name = f"{self._namespace}.{name}"
        if full_name in self._defined:
            return full_name
        self._defined.add(full_name)
        doc = f"One of a chain of {info.cls.__name__} records." if link else _first_paragraph(info.cls)
        return {
            "type": "record",
            "name": name,
            "namespace": self._namespace,
            "doc": doc,
            "fields": [
                self._field(info, field)
                for field in info.fields
                if not (link and is_chain(info.cls, field.type))
            ],
        }

    def _field(self, owner: inspect.StructType, field: inspect.Field) -> Json:
        if is_chain(owner.cls, field.type):
            links = {"type": "array", "items": self._record(owner, f"{owner.cls.__name__}Link", link=True)}
            return {"name": field.name, "type": links, "default": []}
        described = {"name": field.name, "type": self.schema(field.type)}
        if not field.required:
            described["default"] = _as_json(default_of(field))
        return described


def _as_json(value: Any) -> Json:
    """A default value as JSON. Structs are spelled out: Avro wants every field of a record's default."""
    if isinstance(value, msgspec.Struct):
        return {name: _as_json(item) for name, item in msgspec.structs.asdict(value).items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("latin-1")  # Avro's notation of bytes: one code point per byte
    return value


def _first_paragraph(cls: type) -> str:
    return " ".join((cls.__doc__ or "").split("\n\n")[0].split())


def write_files(folder: Path) -> list[Path]:
    """Write the schemas of all topics to ``folder`` as ``<topic>.avsc``; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for topic, record_type in TOPICS.items():
        file = folder / f"{topic}.avsc"
        file.write_text(json.dumps(derive(topic, record_type), indent=2) + "\n")
        files.append(file)
    return files


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m orchestrator.codec.schema FOLDER")
    for written in write_files(Path(sys.argv[1])):
        sys.stderr.write(f"{written}\n")
