"""Commands as people and other languages write them: JSON objects whose values are plain.

::

    {"command": "StartWorkflow", "workflow_id": "o-17", "workflow_type": "Order", "input": ["o-17", 4200]}

The fields are those of the structs in ``protocol.commands``. Where those hold payloads, here is any JSON
value, and is kept byte for byte: a number of thirty digits stays one. A field that is not known is refused,
since a misspelt timeout would be none.
"""

from __future__ import annotations

from types import UnionType
from typing import Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Raw

from orchestrator.protocol.commands import Command, WorkerLost
from orchestrator.protocol.values import Failure, FailureKind, Payload, Payloads


class PlainFailure(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """An activity's failure, as a worker in another language reports it."""

    message: str
    type: str = ""
    stack: str = ""
    non_retryable: bool = False
    next_retry_delay_ms: int | None = None
    details: tuple[Raw, ...] = ()
    cause: PlainFailure | None = None


def decode(data: bytes) -> Command:
    """The command in a JSON object.

    Raises:
        msgspec.MsgspecError: it is none; the message says why, and where.
        UnicodeDecodeError: it is not UTF-8.
        RecursionError: it is nested too deeply.
    """
    data.decode()  # msgspec looks at the inside of Raw values for their end only
    plain = _decoder.decode(data)
    cls = _CLASSES[type(plain)]
    fields = {name: _full(getattr(plain, name)) for name in plain.__struct_fields__}
    command: Command = cls(**{name: value for name, value in fields.items() if value is not msgspec.UNSET})
    return command


def _full(value: Any) -> Any:
    """The value as the command holds it."""
    if isinstance(value, Raw):
        return Payload(data=bytes(value))
    if isinstance(value, PlainFailure):
        fields = {name: _full(getattr(value, name)) for name in value.__struct_fields__}
        return Failure(kind=FailureKind.APPLICATION, **fields)
    if isinstance(value, tuple):
        return tuple(map(_full, value))
    if isinstance(value, dict):
        return {key: _full(found) for key, found in value.items()}
    return value


_PLAIN: Final[dict[Any, Any]] = {
    Payloads: tuple[Raw, ...],
    dict[str, Payload]: dict[str, Raw],
    Failure: PlainFailure,
}
"""What stands in a plain command for the types that hold payloads."""


def _plain_type(hint: Any) -> Any:
    if get_origin(hint) in (Union, UnionType) and Payload in get_args(hint):
        return Raw | msgspec.UnsetType  # a payload that may be missing: JSON's null is a value
    return _PLAIN.get(hint, hint)


def _plain_class(cls: type[Any]) -> type[msgspec.Struct]:
    hints = get_type_hints(cls)
    defaults = {field.name: field.default for field in msgspec.structs.fields(cls)}
    factories = {field.name: field.default_factory for field in msgspec.structs.fields(cls)}
    fields: list[Any] = []
    for name in cls.__struct_fields__:
        hint = _plain_type(hints[name])
        if hint == (Raw | msgspec.UnsetType):
            fields.append((name, hint, msgspec.UNSET))
        elif factories[name] is not msgspec.NODEFAULT:
            fields.append((name, hint, msgspec.field(default_factory=factories[name])))
        elif defaults[name] is not msgspec.NODEFAULT:
            fields.append((name, hint, defaults[name]))
        else:
            fields.append((name, hint))
    return msgspec.defstruct(
        cls.__name__, fields, tag=cls.__name__, tag_field="command", kw_only=True, forbid_unknown_fields=True
    )


_CLASSES: Final = {_plain_class(cls): cls for cls in get_args(Command) if cls is not WorkerLost}
"""The plain twin of each command. That a worker is lost only coordinators can know."""

_decoder: Final = msgspec.json.Decoder(Union[tuple(_CLASSES)])  # noqa: UP007
