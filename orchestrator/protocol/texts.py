"""Names, texts and numbers that users give and records carry: checked where they come in.

What a record cannot hold must be refused while its author can still be told: a text with half a character
in it, for example, has no bytes. Each function returns a plain ``str`` or ``int``, whatever subclass came in.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, TypeVar

from orchestrator.errors import UsageError

MAX_NAME_CHARS: Final = 1_000
"""As in Temporal: names of types and queues are part of keys and labels, so they are bounded."""

MAX_SUMMARY_CHARS: Final = 2_000
"""A summary is one line for people; what is longer is data and belongs into arguments."""

MAX_INT: Final = 2**31 - 1
"""Of numbers that users give: what every language and every JSON reader can hold."""

Word = TypeVar("Word", bound=StrEnum)


def check_name(name: Any, what: str) -> str:
    """Return the name, or raise :class:`UsageError` if it cannot be one. Messages call it ``what``."""
    if not isinstance(name, str):
        raise UsageError(f"{what} is {name!r}; give a name as text")
    if not 0 < len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise UsageError(f"{what} is {name[:100]!r}; give 1 to {MAX_NAME_CHARS} printable characters")
    return str.__str__(name)


def check_text(text: Any, what: str) -> str:
    """Return the text as it is, or raise :class:`UsageError` if it is none or cannot be said in UTF-8."""
    if not isinstance(text, str):
        raise UsageError(f"{what} is {text!r}; give text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} is {text[:100]!r}, which is no text that UTF-8 can say: {error}") from error
    return str.__str__(text)


def check_summary(summary: Any) -> str:
    """Return the summary, or raise :class:`UsageError` if it is no text or a long one."""
    text = check_text(summary, "summary")
    if len(text) > MAX_SUMMARY_CHARS:
        raise UsageError(f"summary has {len(text)} characters, at most {MAX_SUMMARY_CHARS} are allowed")
    return text


def check_int(number: Any, what: str, *, minimum: int) -> int:
    """Return the number, or raise :class:`UsageError` if it is not whole, too small or above ``MAX_INT``."""
    if isinstance(number, bool) or not isinstance(number, int):
        raise UsageError(f"{what} is {number!r}; give a whole number")
    if not minimum <= number <= MAX_INT:
        raise UsageError(f"{what} is {number}; it must be between {minimum} and {MAX_INT}")
    return int(number)


def check_word(kind: type[Word], word: Any, what: str) -> Word:
    """Return the member of an enumeration, which its value stands for too, or raise :class:`UsageError`."""
    if type(word) is kind:
        return word
    try:
        return kind(word)
    except ValueError:
        known = ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
        raise UsageError(f"{what} is {word!r}; give one of {known}") from None
