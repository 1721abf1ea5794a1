"""Reads our own Avro, by functions that are generated once per struct: the common case, made fast.

Only for bytes that were written with exactly our schema. Whatever is unusual (a word of an enum that is
unknown, damage of any kind) raises something, and :mod:`orchestrator.codec.avro` reads the record again by
fastavro, which is slower and says what is wrong. Lengths are checked as far as they could do harm: none is
negative, no item takes zero bytes, and what reads past the end does not end where the record ends.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from msgspec import inspect

from orchestrator.codec.schema import default_of, is_chain, structs_of, without_none
from orchestrator.codec.writers import MAX_CHAIN_LINKS, encoding_of

Read = Callable[[bytes, int], tuple[Any, int]]
"""(bytes, position) → (value, position after it)."""


class NotRead(ValueError):
    """The bytes are unusual; read them the slow way."""


_TIME_BYTES: Final = 6
"""What a time of this century takes: Unix milliseconds, 7 bits a byte."""

_MAX_TIMES: Final = 1_024
"""Remembered; then all are forgotten. The records of a step share a few."""

_times: Final[dict[bytes, int]] = {}
"""Integers of so many bytes that were read lately, by their bytes: one takes as long as three texts."""


def _long(data: bytes, at: int) -> tuple[int, int]:
    """An integer of up to ten bytes."""
    found = _times.get(data[at : at + _TIME_BYTES])
    if found is not None:
        return found, at + _TIME_BYTES
    found, end = _any_long(data, at)
    if end == at + _TIME_BYTES:
        if len(_times) >= _MAX_TIMES:
            _times.clear()
        _times[data[at:end]] = found
    return found, end


def _any_long(data: bytes, at: int) -> tuple[int, int]:
    shift = found = 0
    while True:
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        if byte < 0x80:
            if found >> 64:  # ten bytes hold more than Avro's integers may have
                raise NotRead
            return (found >> 1) ^ -(found & 1), at
        shift += 7
        if shift > 63:
            raise NotRead


def _size(data: bytes, at: int) -> tuple[int, int]:
    """A length, or the count of a block; never negative."""
    size, at = _long(data, at)
    if size < 0:
        raise NotRead
    return size, at


def _chained(links: list[dict[str, Any]], cls: type, field: str) -> Any:
    """A chain of structs from its links, nearest first."""
    if len(links) > MAX_CHAIN_LINKS:
        raise NotRead
    found = None
    for fields in reversed(links):
        found = cls(**fields, **{field: found})
    return found


_double: Final = struct.Struct("<d").unpack_from

_SMALL: Final = tuple([(byte >> 1) ^ -(byte & 1) for byte in range(128)])
"""Integers of one byte."""

_READ_SIZE: Final = ["n = d[p]", "if n & 129: n, p = size(d, p)", "else: n >>= 1; p += 1"]
"""Lines that read a size into ``n``; most have one byte, and calls cost more than all else here."""

_READ_TEXT: Final = [*_READ_SIZE, "q = p + n"]
"""Lines that read where a text, or bytes, from ``p`` on end into ``q``."""


def _padded(pad: str, lines: list[str]) -> list[str]:
    return [pad + line for line in lines]


class ReaderCompiler:
    """Generates the readers of the structs of one topic."""

    def __init__(self) -> None:
        self._names: dict[str, Any] = {
            "long": _long, "size": _size, "small": _SMALL, "chained": _chained, "double": _double,
            "NotRead": NotRead,
        }  # fmt: skip
        self._known: set[str] = set()
        self._source: list[str] = []

    def root(self, info: inspect.Type) -> Read:
        """The reader of a topic's records."""
        name = self._struct(info) if isinstance(info, inspect.StructType) else self._union(info)
        exec(compile("\n".join(self._source), "<avro readers>", "exec"), self._names)
        found: Read = self._names[name]
        return found

    def _struct(self, info: inspect.StructType, *, link: bool = False) -> str:
        """The name of the function that reads a struct (as a link of a chain: the fields of one)."""
        cls = info.cls.__name__
        name = f"read_{cls}{'_link' if link else ''}"
        if name not in self._known:
            self._known.add(name)
            self._names[f"cls_{cls}"] = info.cls
            body, made = [f"def {name}(d, p):"], []
            for place, field in enumerate(info.fields):
                v = f"v{place}"
                if is_chain(info.cls, field.type):
                    if link:
                        continue
                    body += self._chain(info, field.name, v)
                else:
                    body += self._field(field, v)
                made.append(f"{field.name}={v}")
            maker = "dict" if link else f"cls_{cls}"
            self._source += [*body, f" return {maker}({', '.join(made)}), p"]
        return name

    def _field(self, field: inspect.Field, v: str) -> list[str]:
        """Lines that read a field. A struct is known by its bytes if it is the default one, as most are."""
        lines = self._value(field.type, v, " ")
        if not isinstance(field.type, inspect.StructType) or field.required:
            return lines
        name = f"default_{len(self._names)}"
        default = default_of(field)
        written = self._names[name + "_bytes"] = encoding_of(default)
        self._names[name] = default
        return [
            f" if d.startswith({name}_bytes, p): {v} = {name}; p += {len(written)}",
            " else:",
            *_padded(" ", lines),
        ]

    def _chain(self, info: inspect.StructType, field: str, v: str) -> list[str]:
        reader = self._struct(info, link=True)
        return [
            *self._blocks(f"{v}s", [f"    x, p = {reader}(d, p); {v}s.append(x)"], " ", "[]"),
            f" {v} = chained({v}s, cls_{info.cls.__name__}, {field!r})",
        ]

    def _union(self, info: inspect.Type) -> str:
        structs = structs_of(info)
        name = "read_one_of_" + "_".join(found.cls.__name__ for found in structs)
        if name not in self._known:
            self._known.add(name)
            readers = ", ".join(self._struct(found) for found in structs)
            table = f"table_of_{name}"
            self._source += [
                f"{table} = ({readers},)",
                f"def {name}(d, p):",
                *_padded(" ", _READ_SIZE),
                f" return {table}[n](d, p)",
            ]
        return name

    def _blocks(self, v: str, item: list[str], pad: str, empty: str) -> list[str]:
        """Lines that read the blocks of an array or a map into variable ``v``."""
        return [
            f"{pad}{v} = {empty}",
            *_padded(pad, _READ_SIZE),
            f"{pad}while n:",
            f"{pad}  for _ in range(n):",
            *_padded(pad[:-1], item),
            *_padded(pad + "  ", _READ_SIZE),
        ]

    def _value(self, info: inspect.Type, v: str, pad: str) -> list[str]:
        """Lines that read a value into variable ``v``."""
        inner = without_none(info)
        if inner is not None:
            return [
                f"{pad}b = d[p]; p += 1",
                f"{pad}if b == 0: {v} = None",
                f"{pad}elif b != 2: raise NotRead",
                f"{pad}else:",
                *self._value(inner, v, pad + " "),
            ]
        if isinstance(info, inspect.VarTupleType):
            item = self._value(info.item_type, v + "i", "    ")
            lines = self._blocks(v, [*item, f"    {v}.append({v}i)"], pad, "[]")
            return [
                f"{pad}if d[p] == 0:",
                f"{pad}  {v} = (); p += 1",
                f"{pad}else:",
                *[" " + line for line in lines],
                f"{pad} {v} = tuple({v})",
            ]
        if isinstance(info, inspect.DictType):
            item = self._value(info.value_type, v + "i", "     ")
            key = _padded("     ", [*_READ_TEXT, "key = d[p:q].decode(); p = q"])
            blocks = self._blocks(v, [*key, *item, f"     {v}[key] = {v}i"], pad + " ", "{}")
            return [f"{pad}if d[p] == 0: {v} = {{}}; p += 1", f"{pad}else:", *blocks]
        if isinstance(info, inspect.StructType):
            return [f"{pad}{v}, p = {self._struct(info)}(d, p)"]
        if isinstance(info, inspect.UnionType):
            return [f"{pad}{v}, p = {self._union(info)}(d, p)"]
        return _padded(pad, self._scalar(info, v))

    def _scalar(self, info: inspect.Type, v: str) -> list[str]:
        if isinstance(info, inspect.IntType):
            return [
                f"{v} = d[p]",
                f"if {v} < 128: {v} = small[{v}]; p += 1",
                f"else: {v}, p = long(d, p)",
            ]
        if isinstance(info, inspect.StrType):
            return [*_READ_TEXT, f"{v} = d[p:q].decode(); p = q"]
        if isinstance(info, inspect.BytesType):
            return [*_READ_TEXT, f"{v} = d[p:q]; p = q"]
        if isinstance(info, inspect.EnumType):
            words = f"enum_{info.cls.__name__}"
            self._names[words] = {word.value.encode(): word for word in info.cls}
            return [*_READ_TEXT, f"{v} = {words}[d[p:q]]; p = q"]
        if isinstance(info, inspect.BoolType):
            return [f"{v} = (False, True)[d[p]]; p += 1"]
        if isinstance(info, inspect.FloatType):
            return [f"{v} = double(d, p)[0]; p += 8"]
        raise TypeError(f"there is no Avro encoding for {info}")
