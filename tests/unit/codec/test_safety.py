from typing import Any

import pytest

from orchestrator.codec.safety import refuse_bombs
from orchestrator.codec.schema import TOPICS, derive


def record(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "type": "record",
        "name": name,
        "namespace": "x",
        "fields": [{"name": field, "type": kind} for field, kind in fields.items()],
    }


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


@pytest.mark.parametrize("topic", TOPICS)
def test_our_own_schemas_pass(topic: str) -> None:
    refuse_bombs(derive(topic, TOPICS[topic]))


@pytest.mark.parametrize(
    "schema",
    [
        record("A", a=["null", "A"]),
        record("A", a=array("x.A")),
        record("A", a={"type": "map", "values": "A"}),
        record("A", b=record("B", a=["null", "x.A"])),
    ],
)
def test_recursion_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match="contains itself"):
        refuse_bombs(schema)


@pytest.mark.parametrize(
    "items",
    [
        "null",
        {"type": "null"},
        record("Empty"),
        record("Nulls", a="null", b=record("Empty")),
        {"type": "fixed", "name": "F", "size": 0},
    ],
)
def test_arrays_of_nothing_are_refused(items: Any) -> None:
    with pytest.raises(ValueError, match="take no bytes"):
        refuse_bombs(record("A", a=array(items)))


@pytest.mark.parametrize(
    "schema",
    [
        record("A", a=array(["null", "long"]), b={"type": "map", "values": "null"}, c=record("Empty")),
        record("A", a=record("B", x="long"), b=array("B"), c=array("x.B")),
        record("A", a=array({"type": "enum", "name": "E", "symbols": ["X"]}), b={"type": "string"}),
    ],
)
def test_the_rest_passes(schema: Any) -> None:
    refuse_bombs(schema)
