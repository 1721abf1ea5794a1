"""Which schemas may be read with: those under which many bytes are needed to say much.

Under a recursive schema the bytes decide how deep fastavro recurses in C, up to a segmentation fault;
in an array of items that take no bytes, five bytes can say billions of items. Our own schemas have
neither; this is for those that other versions left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from orchestrator.codec.schema import Json

_PRIMITIVE_BYTES: Final = {
    "null": 0,
    "boolean": 1,
    "int": 1,
    "long": 1,
    "float": 4,
    "double": 8,
    "bytes": 1,
    "string": 1,
}
"""The fewest bytes that a value of a primitive type takes."""


def refuse_bombs(schema: Json) -> None:
    """Raise ``ValueError`` if a few bytes under this schema could cost much, or a name is unknown."""
    _Measure().minimum_bytes(schema, "")


class _Measure:
    """Walks a schema and finds how few bytes its parts may take. Names count once they are complete."""

    def __init__(self) -> None:
        self._named = dict(_PRIMITIVE_BYTES)
        self._by_kind: dict[str, Callable[[Json, str], int]] = {
            "array": self._array,
            "map": self._map,
            "record": self._record,
            "fixed": lambda schema, namespace: self._define(schema, namespace, schema["size"]),
            "enum": lambda schema, namespace: self._define(schema, namespace, 1),
        }

    def minimum_bytes(self, schema: Json, namespace: str) -> int:
        """The size of the smallest value of a type that stands within a namespace."""
        if isinstance(schema, list):
            return 1 + min([self.minimum_bytes(branch, namespace) for branch in schema])
        if isinstance(schema, str):
            return self._reference(schema, namespace)
        measure = self._by_kind.get(schema["type"])
        return measure(schema, namespace) if measure else self._reference(schema["type"], namespace)

    def _array(self, schema: Json, namespace: str) -> int:
        if self.minimum_bytes(schema["items"], namespace) == 0:
            raise ValueError(
                "it has an array of items that take no bytes: a few bytes could say billions of them"
            )
        return 1

    def _map(self, schema: Json, namespace: str) -> int:
        self.minimum_bytes(schema["values"], namespace)
        return 1

    def _record(self, schema: Json, namespace: str) -> int:
        inner = _full_name(schema, namespace).rpartition(".")[0]
        size = sum([self.minimum_bytes(field["type"], inner) for field in schema["fields"]])
        return self._define(schema, namespace, size)

    def _define(self, schema: Json, namespace: str, size: int) -> int:
        self._named[_full_name(schema, namespace)] = size
        return size

    def _reference(self, name: str, namespace: str) -> int:
        for known in (name, f"{namespace}.{name}"):
            if known in self._named:
                return self._named[known]
        raise ValueError(
            f"the record {name} contains itself, or is nowhere defined: bytes could nest it without end"
        )


def _full_name(schema: Json, namespace: str) -> str:
    name: str = schema["name"]
    return name if "." in name else f"{schema.get('namespace', namespace)}.{name}"
