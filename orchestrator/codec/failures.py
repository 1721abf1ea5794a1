"""Failures: exceptions as data, and back, with the whole chain of causes.

What crosses a process boundary keeps its message, its type's name, its traceback as text and its
causes. An exception of a class that this module does not know becomes kind ``application`` with the
simple name of its class as ``type``, and comes back as an :class:`ApplicationError` of that type: the
reader need not have the class, and no class is ever looked up by a name from a record.

A failure is at most ``MAX_FAILURE_BYTES`` large, so that it fits into any record: what is longer is
shortened, and says so. Nothing here raises: a failure that cannot be told in full is told in part.
"""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

import msgspec
from msgspec.structs import replace

from orchestrator.codec.payloads import JSON_PLAIN, PayloadConverter
from orchestrator.errors import (
    ActivityFailure,
    ApplicationError,
    CanceledError,
    FailureError,
    PayloadError,
    TerminatedError,
    TimeoutFailure,
    UsageError,
    WorkerLostFailure,
    retry_delay_s,
)
from orchestrator.protocol.texts import MAX_INT
from orchestrator.protocol.values import (
    Failure,
    FailureKind,
    Payload,
    Payloads,
    RetryState,
    TimeoutType,
)

MAX_FAILURE_BYTES: Final = 64 * 1024
"""Of a failure as Avro, causes included: far below a payload's limit, so results and failures fit alike.
The limits below add up to less: 8 x (2,048 + 3,072 + 2 x 256 + 200) + 16,384."""

MAX_CAUSES: Final = 8
"""Failures of a chain, the outermost included. Of a longer one the first 7 and the root cause are kept."""

MAX_MESSAGE_BYTES: Final = 2_048
"""A message is for people. Texts that programs read belong into ``details``."""

MAX_STACK_BYTES: Final = 3_072
"""About 25 frames. The innermost are kept: they say where it happened."""

MAX_NAME_BYTES: Final = 256
"""Of an error type or an activity type within a failure."""

MAX_DETAILS_BYTES: Final = 16 * 1024
"""All details of a chain together."""

_MAX_FOLLOWED_CAUSES = 1_000
"""A program that chains in a loop makes chains of any length; this many are followed to find the root."""

_MAX_FRAMES = 40
"""More would not fit into ``MAX_STACK_BYTES`` anyway, and formatting reads source files."""

_ENGINE = tuple(
    os.path.join(os.path.dirname(os.path.dirname(__file__)), part, "")
    for part in ("activity", "coordinator", "worker", "workflow")
)
"""What calls the user's code, and is called by it: its frames in a stack tell nobody anything."""

_CUT = "... (shortened)"

_Word = TypeVar("_Word", bound=StrEnum)


def to_failure(exc: BaseException, converter: PayloadConverter) -> Failure:
    """The failure that tells of ``exc`` and its causes (``__cause__``, else an unsuppressed ``__context__``).

    A failure that came from another process keeps the text of its stack there.
    """
    spare_bytes = MAX_DETAILS_BYTES
    links = []
    for link in _chain(exc):
        failure = _bounded(_describe(link, converter), spare_bytes)
        spare_bytes = max(0, spare_bytes - _details_bytes(failure.details))
        links.append(failure)
    whole: Failure | None = None
    for failure in reversed(links):
        whole = replace(failure, cause=whole)
    assert whole is not None  # a chain has at least its first link
    return whole


def from_failure(failure: Failure, converter: PayloadConverter) -> FailureError:
    """The exception that tells of ``failure``; its causes are chained by ``__cause__``."""
    links = [failure]
    while (cause := links[-1].cause) is not None:
        links.append(cause)
    whole: FailureError | None = None
    for link in reversed(links):
        error = _BUILDERS[link.kind](link, converter)
        if whole is not None:  # assigning None would suppress the context, should it be raised in a handler
            error.__cause__ = whole
        _remember(error, link)
        whole = error
    assert whole is not None  # links is not empty
    return whole


# --- from exceptions ---


def _chain(exc: BaseException) -> list[BaseException]:
    """The exception and its causes, outermost first, each once, at most ``MAX_CAUSES``."""
    links: list[BaseException] = []
    seen: set[int] = set()
    link: BaseException | None = exc
    while link is not None and id(link) not in seen and len(links) < _MAX_FOLLOWED_CAUSES:
        links.append(link)
        seen.add(id(link))
        link = _cause(link)
    if len(links) > MAX_CAUSES:
        links[MAX_CAUSES - 1 : -1] = []
    return links


def _cause(exc: BaseException) -> BaseException | None:
    if exc.__cause__ is not None:
        return exc.__cause__
    if exc.__context__ is not None and not exc.__suppress_context__:
        return exc.__context__
    if isinstance(exc, BaseExceptionGroup):
        first: BaseException = exc.exceptions[0]
        return first
    return None


def _describe(exc: BaseException, converter: PayloadConverter) -> Failure:
    """The failure for one link of a chain, without its cause."""
    origin = _remembered(exc)
    if origin is not None:
        return origin
    kind = FailureKind.APPLICATION
    fields: dict[str, Any] = {"type": type(exc).__name__}
    for known, (known_kind, read) in _READERS.items():
        if isinstance(exc, known):
            kind, fields = known_kind, read(exc, converter)
            break
    return Failure(kind=kind, message=_message(exc), stack=_stack(exc), **fields)


def _read_nothing(exc: Any, converter: PayloadConverter) -> dict[str, Any]:
    return {}


def _read_application(exc: Any, converter: PayloadConverter) -> dict[str, Any]:
    # A subclass may have forgotten super().__init__(), so nothing is taken for granted.
    return {
        "type": str(getattr(exc, "type", type(exc).__name__)),
        "non_retryable": bool(getattr(exc, "non_retryable", False)),
        "next_retry_delay_ms": _delay_ms(getattr(exc, "next_retry_delay", None)),
        "details": _encode_details(getattr(exc, "details", ()), converter),
    }


def _read_timeout(exc: TimeoutFailure, converter: PayloadConverter) -> dict[str, Any]:
    return {"timeout_type": _word(TimeoutType, exc.timeout_type)}


def _read_activity(exc: ActivityFailure, converter: PayloadConverter) -> dict[str, Any]:
    return {
        "activity_type": str(exc.activity_type),
        "activity_id": _number(exc.activity_id),
        "attempt": _number(exc.attempt),
        "retry_state": _word(RetryState, exc.retry_state),
    }


_Reader = Callable[[Any, PayloadConverter], dict[str, Any]]
_READERS: Final[Mapping[type[BaseException], tuple[FailureKind, _Reader]]] = {
    ApplicationError: (FailureKind.APPLICATION, _read_application),
    ActivityFailure: (FailureKind.ACTIVITY, _read_activity),
    TimeoutFailure: (FailureKind.TIMEOUT, _read_timeout),
    CanceledError: (FailureKind.CANCELED, _read_nothing),
    asyncio.CancelledError: (FailureKind.CANCELED, _read_nothing),
    TerminatedError: (FailureKind.TERMINATED, _read_nothing),
    WorkerLostFailure: (FailureKind.WORKER_LOST, _read_nothing),
}
"""What is not in here, the ``TimeoutError`` of user code too, is kind ``application``."""


def _message(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception as error:
        return f"(the message is unknown: str() of {type(exc).__name__} raised {type(error).__name__})"
    if not text and isinstance(exc, asyncio.CancelledError):
        return "cancelled"
    return text


def _stack(exc: BaseException) -> str:
    try:
        frames = traceback.extract_tb(exc.__traceback__, limit=-_MAX_FRAMES)
        theirs = [frame for frame in frames if not frame.filename.startswith(_ENGINE)] or frames
        # As plain tuples, they are printed without a line of carets under each.
        return "".join(traceback.format_list([(f.filename, f.lineno or 0, f.name, f.line) for f in theirs]))
    except Exception as error:  # a source file that cannot be read, a loader that fails
        return f"(the stack is unknown: formatting it raised {type(error).__name__})"


def _delay_ms(delay: Any) -> int | None:
    """What a subclass has set itself may be anything; what is no delay is left to the policy."""
    try:
        delay_s = retry_delay_s(delay)
    except UsageError:
        return None
    return None if delay_s is None else round(delay_s * 1_000)


def _number(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value <= MAX_INT else 0


def _word(words: type[_Word], text: str) -> _Word | None:
    return words(text) if text in words.__members__.values() else None


def _encode_details(details: Any, converter: PayloadConverter) -> Payloads:
    values = details if isinstance(details, tuple | list) else (details,)
    return tuple([_encode_detail(value, converter) for value in values])


def _encode_detail(value: Any, converter: PayloadConverter) -> Payload:
    try:
        return converter.to_payload(value)
    except PayloadError as error:
        return converter.to_payload(_text(f"(detail lost: {error})", MAX_MESSAGE_BYTES))


# --- back to exceptions ---


def _build_application(failure: Failure, converter: PayloadConverter) -> FailureError:
    error = ApplicationError(
        failure.message,
        *[_decode_detail(payload, converter) for payload in failure.details],
        type=failure.type,
        non_retryable=failure.non_retryable,
    )
    if failure.next_retry_delay_ms is not None:  # set, not given: what others wrote is not to be judged here
        error.next_retry_delay = failure.next_retry_delay_ms / 1_000
    return error


def _build_activity(failure: Failure, converter: PayloadConverter) -> FailureError:
    return ActivityFailure(
        failure.message,
        activity_type=failure.activity_type,
        activity_id=failure.activity_id,
        attempt=failure.attempt,
        retry_state=str(failure.retry_state or ""),
    )


_BUILDERS: Final[Mapping[FailureKind, Callable[[Failure, PayloadConverter], FailureError]]] = {
    FailureKind.APPLICATION: _build_application,
    FailureKind.ACTIVITY: _build_activity,
    FailureKind.TIMEOUT: lambda failure, _: TimeoutFailure(
        failure.message, timeout_type=str(failure.timeout_type or "")
    ),
    FailureKind.CANCELED: lambda failure, _: CanceledError(failure.message),
    FailureKind.TERMINATED: lambda failure, _: TerminatedError(failure.message),
    FailureKind.WORKER_LOST: lambda failure, _: WorkerLostFailure(failure.message),
}


def _decode_detail(payload: Payload, converter: PayloadConverter) -> Any:
    try:
        return converter.from_payload(payload)
    except PayloadError as error:
        return f"(detail lost: {error})"


# --- memory of where a failure came from ---

_ORIGIN = "_orchestrator_failure"


def _remember(error: FailureError, failure: Failure) -> None:
    """Keep the failure an exception was made from: its stack there and its raw details are nowhere else."""
    setattr(error, _ORIGIN, failure)


def _remembered(exc: BaseException) -> Failure | None:
    origin = getattr(exc, _ORIGIN, None)
    return origin if isinstance(origin, Failure) else None


# --- limits ---


def _bounded(failure: Failure, spare_bytes: int) -> Failure:
    """The failure within the limits, and without its cause; the details get what is spare."""
    details, size = failure.details, _details_bytes(failure.details)
    if size > spare_bytes:
        lost = f"(details lost: {size} bytes, of {MAX_DETAILS_BYTES} for all details of a failure)"
        details = (Payload(data=msgspec.json.encode(lost), encoding=JSON_PLAIN),)
    return replace(
        failure,
        message=_text(failure.message, MAX_MESSAGE_BYTES),
        type=_text(failure.type, MAX_NAME_BYTES),
        stack=_text(failure.stack, MAX_STACK_BYTES, keep_end=True),
        details=details,
        activity_type=_text(failure.activity_type, MAX_NAME_BYTES),
        cause=None,
    )


def _details_bytes(details: Payloads) -> int:
    """Upper bound of what the details take in a record."""
    return sum(
        [
            len(payload.data)
            + len(payload.encoding.encode())
            + sum([len(name.encode()) + len(text.encode()) + 8 for name, text in payload.metadata.items()])
            + 16
            for payload in details
        ]
    )


def _text(text: str, limit_bytes: int, *, keep_end: bool = False) -> str:
    """The text as UTF-8 can say it (a lone surrogate is spelled out), shortened to the limit."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= limit_bytes:
        return data.decode()
    room = limit_bytes - len(_CUT)
    if keep_end:
        return _CUT + data[-room:].decode(errors="ignore")
    return data[:room].decode(errors="ignore") + _CUT
