"""Payloads: values of users as bytes, and back.

The encoding is chosen by the value, the hint only says what to make of it when it is read:

=============== ======================================================================================
binary/null     ``None``
binary/plain    ``bytes``, ``bytearray``, ``memoryview``
json/plain      all else that JSON can say: dataclasses, structs, enums, dates, UUIDs, decimals, sets, ...
=============== ======================================================================================

What cannot be told apart when it is read back (NaN becomes null, a cycle has no end) is refused when it
is written, by a :class:`~orchestrator.errors.PayloadError` that names the type and says what to do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import zip_longest
from math import isfinite
from typing import Any, Final

import msgspec

from orchestrator.errors import PayloadError
from orchestrator.protocol.values import MAX_PAYLOAD_BYTES, Payload, Payloads

JSON_PLAIN: Final = "json/plain"
BINARY_PLAIN: Final = "binary/plain"
BINARY_NULL: Final = "binary/null"

_ANYTHING: Final = (None, Any, object)
"""Hints that ask for nothing in particular: plain JSON types."""

_MAX_CACHED_HINTS = 1_024
"""A program has some hundred annotated parameters; the bound is for hints that are made at run time."""

_MAX_SHOWN_CHARS = 200
"""How much of a reason or of a hint an error message shows."""


class PayloadConverter:
    """Turns values into payloads and payloads into values. Without state: share :data:`DEFAULT`."""

    def to_payload(self, value: Any) -> Payload:
        """Encode one value.

        Raises:
            PayloadError: the value cannot be encoded, or is larger than ``MAX_PAYLOAD_BYTES``.
        """
        payload = _encode(value)
        _check_size((payload,))
        return payload

    def from_payload(self, payload: Payload, hint: Any = None) -> Any:
        """Decode one value as the type ``hint``; None and ``Any`` mean plain JSON types.

        ``None`` was written for a reason, so it is returned whatever the hint.

        Raises:
            PayloadError: the bytes are damaged, of an unknown encoding, or not what the hint asks for.
        """
        decode = _DECODERS.get(payload.encoding)
        if decode is None:
            raise PayloadError(
                f"the payload's encoding is {payload.encoding!r}, expected one of {', '.join(_DECODERS)}; "
                "if a codec wrote it, configure the same codec here"
            )
        try:
            return decode(payload.data, hint)
        except PayloadError:
            raise
        # Hooks and classes of the user's run in here, and may raise anything.
        except Exception as error:
            raise PayloadError(
                f"a {payload.encoding} payload of {len(payload.data)} bytes cannot be read as "
                f"{'plain JSON' if hint in _ANYTHING else _name(hint)}: {_reason(error)}; "
                "the value that was sent must fit the annotation"
            ) from error

    def to_payloads(self, values: Sequence[Any]) -> Payloads:
        """Encode the values of one command or event.

        Raises:
            PayloadError: a value cannot be encoded, or all together are larger than ``MAX_PAYLOAD_BYTES``.
        """
        payloads = tuple([_encode(value) for value in values])
        _check_size(payloads)
        return payloads

    def from_payloads(self, payloads: Payloads, hints: Sequence[Any]) -> list[Any]:
        """Decode the payloads, each by the hint at its place; payloads without a hint as plain types."""
        pairs = zip_longest(payloads, hints[: len(payloads)])
        return [self.from_payload(payload, hint) for payload, hint in pairs]


DEFAULT: Final = PayloadConverter()
"""The converter that is used where none is given."""


def _encode(value: Any) -> Payload:
    if value is None:
        return Payload(data=b"", encoding=BINARY_NULL)
    if isinstance(value, bytes | bytearray | memoryview):
        return Payload(data=bytes(value), encoding=BINARY_PLAIN)
    try:
        data = _json_encoder.encode(value)
        if b"null" in data:  # JSON knows neither NaN nor infinity, and the encoder writes null for both
            _refuse_non_finite(value)
    except PayloadError:
        raise
    except RecursionError as error:
        raise PayloadError(
            f"a value of type {_name(type(value))} refers to itself or is nested too deeply for JSON; "
            "send a flat form of it, with keys in place of references"
        ) from error
    # Properties, hooks and serializers of the user's run in here, and may raise anything.
    except Exception as error:
        raise PayloadError(
            f"a value of type {_name(type(value))} cannot be encoded as JSON: {_reason(error)}; "
            "use dataclasses, msgspec structs, pydantic models, plain JSON types or bytes"
        ) from error
    return Payload(data=data)


def _encode_unknown(value: Any) -> Any:
    """What msgspec itself does not know: pydantic models, and subclasses of the scalar types."""
    if hasattr(value, "model_dump_json"):
        return value.model_dump(mode="json")
    for scalar, plain in _PLAIN_SCALARS.items():
        if isinstance(value, scalar):
            return plain(value)
    raise PayloadError(
        f"objects of type {_name(type(value))} cannot be encoded as JSON; use dataclasses, msgspec structs, "
        "pydantic models, plain JSON types or bytes, or convert it first"
    )


_PLAIN_SCALARS: Final[dict[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}


def _refuse_non_finite(value: Any) -> None:
    pending = [msgspec.to_builtins(value, enc_hook=_encode_unknown)]
    while pending:
        item = pending.pop()
        if type(item) is float:
            if not isfinite(item):
                raise PayloadError(
                    f"a value of type {_name(type(value))} contains the float {item}, which JSON cannot say; "
                    "send None or a string in its place"
                )
        elif type(item) is dict:
            pending.extend(item.values())
        elif type(item) in (list, tuple):
            pending.extend(item)


def _check_size(payloads: Payloads) -> None:
    size = sum([len(payload.data) for payload in payloads])
    if size > MAX_PAYLOAD_BYTES:
        largest = max(range(len(payloads)), key=lambda index: len(payloads[index].data))
        which = f", value {largest + 1} of {len(payloads)} is the largest" if len(payloads) > 1 else ""
        raise PayloadError(
            f"the payload has {size} bytes{which}; at most {MAX_PAYLOAD_BYTES} bytes are allowed for all "
            "values of one call: keep large data in a file, database or object store and send its key"
        )


def _decode_json(data: bytes, hint: Any) -> Any:
    return _json_decoder(hint)(data)


def _decode_binary(data: bytes, hint: Any) -> Any:
    if hint is bytes or hint in _ANYTHING:
        return data
    return msgspec.convert(data, hint, builtin_types=(bytes, bytearray, memoryview), dec_hook=_decode_unknown)


def _decode_null(data: bytes, hint: Any) -> Any:
    return None


_DECODERS: Final[dict[str, Callable[[bytes, Any], Any]]] = {
    JSON_PLAIN: _decode_json,
    BINARY_PLAIN: _decode_binary,
    BINARY_NULL: _decode_null,
}


def _json_decoder(hint: Any) -> Callable[[bytes], Any]:
    if hint in _ANYTHING:
        return _decode_plain_json
    try:
        return _cached_json_decoder(hint)
    except TypeError:  # unhashable, such as Annotated[int, []]; or no type at all, which the next line says
        return _new_json_decoder(hint)


def _new_json_decoder(hint: Any) -> Callable[[bytes], Any]:
    if hasattr(hint, "model_validate_json"):
        validate: Callable[[bytes], Any] = hint.model_validate_json
        return validate
    return msgspec.json.Decoder(hint, dec_hook=_decode_unknown).decode


_cached_json_decoder = lru_cache(maxsize=_MAX_CACHED_HINTS)(_new_json_decoder)


def _decode_unknown(hint: Any, value: Any) -> Any:
    """What msgspec itself does not know, inside of other types: see :func:`_encode_unknown`."""
    if hasattr(hint, "model_validate_json"):
        return hint.model_validate_json(msgspec.json.encode(value))
    for scalar in _PLAIN_SCALARS:
        if isinstance(hint, type) and issubclass(hint, scalar):
            subclass: Callable[[Any], Any] = hint
            return subclass(msgspec.convert(value, scalar))
    raise PayloadError(
        f"the annotation {_name(hint)} cannot be read from JSON; annotate with dataclasses, msgspec structs, "
        "pydantic models or plain JSON types"
    )


def _name(hint: Any) -> str:
    name = f"{hint.__module__}.{hint.__qualname__}" if isinstance(hint, type) else repr(hint)
    return name.removeprefix("builtins.")[:_MAX_SHOWN_CHARS]


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return f"{type(error).__name__}: {error}"[:_MAX_SHOWN_CHARS]


_json_encoder = msgspec.json.Encoder(enc_hook=_encode_unknown)
_decode_plain_json = msgspec.json.Decoder().decode
