"""The language in which runs are looked for: ``WorkflowType = "Order" AND ExecutionStatus = "Failed"``.

The fields and operators are those that users of Temporal know::

    query       = any
    any         = all { OR all }
    all         = one { AND one }
    one         = NOT one | "(" any ")" | field test
    test        = ( = | != | > | >= | < | <= ) value
                | [NOT] STARTS_WITH value
                | [NOT] IN "(" value { "," value } ")"
                | [NOT] BETWEEN value AND value
                | IS [NOT] NULL

Texts stand in double or single quotes, a backslash keeps the next character as it is. Times are texts such as
``"2026-01-01T12:00:00Z"`` or ``"2026-01-01"`` (in UTC, unless they say otherwise), or Unix milliseconds.
Keywords may be written in capitals or not, fields as they are in ``FIELDS``. A test of something that a run
does not have (the ``CloseTime`` of an open one) fails, but for ``IS NULL``; ``NOT`` turns that too.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import Enum
from typing import Any, NamedTuple, NoReturn

import msgspec

from orchestrator.errors import QueryError
from orchestrator.protocol.values import WorkflowStatus

MAX_QUERY_CHARS = 10_000
"""A list of some hundred ids fits; what is longer would be slow to hold against every row."""

MAX_DEPTH = 50
"""Of parentheses and NOTs: nobody writes more by hand, and the stack is bounded."""


Row = Any
"""A run as lists show it: whatever has the attributes that ``FIELDS`` names."""


class Kind(Enum):
    """What values a field has, in words for people."""

    TEXT = 'a text in quotes, such as "order-17"'
    STATUS = "one of " + ", ".join(status.value for status in WorkflowStatus)
    TIME = 'a time such as "2026-01-01T12:00:00Z", or Unix milliseconds'
    NUMBER = "a whole number"


class Field(NamedTuple):
    """A field: the attribute of a row, and what it holds."""

    attribute: str
    kind: Kind


FIELDS = {
    "WorkflowId": Field("workflow_id", Kind.TEXT),
    "RunId": Field("run_id", Kind.TEXT),
    "WorkflowType": Field("workflow_type", Kind.TEXT),
    "ExecutionStatus": Field("status", Kind.STATUS),
    "StartTime": Field("start_time_ms", Kind.TIME),
    "CloseTime": Field("close_time_ms", Kind.TIME),
    "HistoryLength": Field("history_events", Kind.NUMBER),
    "ActivityType": Field("activity_type", Kind.TEXT),
    "Attempt": Field("attempt", Kind.NUMBER),
    "FailureGroup": Field("failure_group", Kind.TEXT),
    "Tags": Field("tags", Kind.TEXT),
}
"""What can be asked for. ``ActivityType`` and ``Attempt`` are of the open activity that was tried most often,
``FailureGroup`` is a fingerprint as the list of failures shows it, ``Tags = "x"`` holds if "x" is among them.
"""


def _compares(compare: Callable[[Any, Any], bool]) -> Callable[[Any, tuple[Any, ...]], bool]:
    return lambda found, values: compare(found, values[0])


OPERATORS: dict[str, Callable[[Any, tuple[Any, ...]], bool]] = {
    "=": _compares(operator.eq),
    "!=": _compares(operator.ne),
    ">": _compares(operator.gt),
    ">=": _compares(operator.ge),
    "<": _compares(operator.lt),
    "<=": _compares(operator.le),
    "STARTS_WITH": lambda found, values: bool(found.startswith(values[0])),
    "IN": lambda found, values: found in values,
    "BETWEEN": lambda found, values: bool(values[0] <= found <= values[1]),
    "IS NULL": lambda found, values: False,
}
"""How a field's value, which is there, is held against those of a test."""

_ALLOWED = {
    Kind.TEXT: frozenset(OPERATORS),
    Kind.STATUS: frozenset({"=", "!=", "IN", "IS NULL"}),
    Kind.TIME: frozenset(OPERATORS) - {"STARTS_WITH"},
    Kind.NUMBER: frozenset(OPERATORS) - {"STARTS_WITH"},
}


class Compare(msgspec.Struct, frozen=True):
    """One field held against values."""

    field: str
    operator: str
    values: tuple[str | int, ...] = ()

    def matches(self, row: Row) -> bool:
        """Whether a row passes."""
        field = FIELDS[self.field]
        found = getattr(row, field.attribute)
        if not found and field.kind is not Kind.NUMBER:
            return self.operator == "IS NULL"
        holds = OPERATORS[self.operator]
        if isinstance(found, tuple):
            return any(holds(one, self.values) for one in found)
        return holds(found, self.values)


class Not(msgspec.Struct, frozen=True):
    """What ``part`` does not match."""

    part: Node

    def matches(self, row: Row) -> bool:
        """Whether a row passes."""
        return not self.part.matches(row)


class All(msgspec.Struct, frozen=True):
    """What all parts match; everything, if there are none."""

    parts: tuple[Node, ...]

    def matches(self, row: Row) -> bool:
        """Whether a row passes."""
        return all(part.matches(row) for part in self.parts)


class Either(msgspec.Struct, frozen=True):
    """What one of the parts matches."""

    parts: tuple[Node, ...]

    def matches(self, row: Row) -> bool:
        """Whether a row passes."""
        return any(part.matches(row) for part in self.parts)


Node = Compare | Not | All | Either

EVERYTHING = All(())


def parse(text: str) -> All:
    """A query as a tree, whose top are the tests that all must hold; an empty text is ``EVERYTHING``.

    Raises:
        QueryError: it is not a query; the message says what was found, what was expected, and where.
    """
    if len(text) > MAX_QUERY_CHARS:
        raise QueryError(f"the query has {len(text)} characters; at most {MAX_QUERY_CHARS:,} are read")
    parser = _Parser(text)
    if parser.token.kind == "end":
        return EVERYTHING
    found = parser.any()
    if parser.token.kind != "end":
        parser.fail("AND, OR or the end")
    return found if isinstance(found, All) else All((found,))


def comparisons(node: Node) -> Iterator[Compare]:
    """All tests in a tree."""
    if isinstance(node, Compare):
        yield node
    elif isinstance(node, Not):
        yield from comparisons(node.part)
    else:
        for part in node.parts:
            yield from comparisons(part)


def conjunction(
    query: str = "",
    *,
    status: WorkflowStatus | str | None = None,
    workflow_type: str = "",
    id_prefix: str = "",
) -> str:
    """A query's text that says the same as ``query`` and these together."""
    words = [f"({query})"] if query.strip() else []
    if status:
        words.append(f"ExecutionStatus = {quoted(str(status))}")
    if workflow_type:
        words.append(f"WorkflowType = {quoted(workflow_type)}")
    if id_prefix:
        words.append(f"WorkflowId STARTS_WITH {quoted(id_prefix)}")
    return " AND ".join(words) if len(words) != 1 or not query.strip() else query


def quoted(text: str) -> str:
    """A text as queries write it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# ----------------------------------------------------------------------------------------- the parser


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<number>-?\d+(?![\w.]))
      | (?P<word>`\w+`|[A-Za-z_]\w*)
      | (?P<sign><>|!=|>=|<=|[=<>(),])
      | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_BY_LOWER = {field.lower(): field for field in FIELDS}
_KEYWORDS = frozenset({"AND", "OR", "NOT", "IN", "BETWEEN", "IS", "NULL", "STARTS_WITH"})


class _Parser:
    """Reads a query from left to right; ``token`` is the next one."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text, 0, 0
        self.advance()

    def advance(self) -> None:
        """Go on to the next token."""
        found = _TOKEN.match(self._text, self._at)
        if found is None or found.lastgroup is None:
            rest = self._text[self._at :]
            column = self._at + len(rest) - len(rest.lstrip()) + 1
            shown = rest.strip()[:20]
            why = "a text without its closing quote" if shown[0] in "\"'" else "no word, text or sign"
            raise QueryError(f"the query has {shown!r} at column {column}, which is {why}", column)
        kind, word, column = found.lastgroup, found[found.lastgroup], found.start(found.lastgroup) + 1
        if kind == "word" and word.upper() in _KEYWORDS:
            kind, word = "keyword", word.upper()
        self.token = _Token(kind, "!=" if word == "<>" else word, column)
        self._at = found.end()

    def fail(self, expected: str) -> NoReturn:
        """The next token is none that may stand here."""
        found = self.token.text[:40] or "its end"
        column = self.token.column
        raise QueryError(f"the query has {found} at column {column}, where {expected} is expected", column)

    def took(self, *texts: str) -> bool:
        """Whether the next token is one of these keywords or signs; goes on if so."""
        if self.token.kind not in ("keyword", "sign") or self.token.text not in texts:
            return False
        self.advance()
        return True

    def need(self, text: str) -> None:
        """The next token is this one."""
        if not self.took(text):
            self.fail(text)

    def any(self) -> Node:
        """``any`` of the grammar."""
        parts = [self.all()]
        while self.took("OR"):
            parts.append(self.all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def all(self) -> Node:
        """``all`` of the grammar; what stands in parentheses within is part of it."""
        parts: list[Node] = []
        while True:
            part = self.one()
            parts += part.parts if isinstance(part, All) else (part,)
            if not self.took("AND"):
                return parts[0] if len(parts) == 1 else All(tuple(parts))

    def one(self) -> Node:
        """``one`` of the grammar."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise QueryError(f"the query has more than {MAX_DEPTH} parentheses and NOTs within each other")
        try:
            if self.took("NOT"):
                return Not(self.one())
            if self.took("("):
                found = self.any()
                self.need(")")
                return found
            return self._test()
        finally:
            self._depth -= 1

    def _test(self) -> Node:
        if self.token.kind != "word":
            self.fail("a field, NOT or (")
        name = self.token.text.strip("`")
        if name not in FIELDS:
            near = get_close_matches(name.lower(), _BY_LOWER, 1)
            meant = f"the field {_BY_LOWER[near[0]]}" if near else f"a field ({', '.join(FIELDS)})"
            self.fail(meant)
        self.advance()
        if self.took("IS"):
            negated = self.took("NOT")
            self.need("NULL")
            found = Compare(name, "IS NULL")
        else:
            negated = self.took("NOT")
            found = self._compared(name, negated)
        return Not(found) if negated else found

    def _compared(self, name: str, negated: bool) -> Compare:
        kind = FIELDS[name].kind
        allowed = [sign for sign in OPERATORS if sign in _ALLOWED[kind] and sign != "IS NULL"]
        if negated:
            allowed = [sign for sign in allowed if sign.isupper()]
        sign = self.token.text if self.token.kind in ("keyword", "sign") else ""
        if sign not in allowed:
            self.fail(f"one of {' '.join(allowed)}" + ("" if negated else " or IS [NOT] NULL"))
        self.advance()
        if sign == "IN":
            self.need("(")
            values = [self._value(kind)]
            while self.took(","):
                values.append(self._value(kind))
            self.need(")")
            return Compare(name, sign, tuple(values))
        first = self._value(kind)
        if sign == "BETWEEN":
            self.need("AND")
            return Compare(name, sign, (first, self._value(kind)))
        return Compare(name, sign, (first,))

    def _value(self, kind: Kind) -> str | int:
        token = self.token
        value = _READ[kind](token)
        if value is None:
            self.fail(kind.value)
        self.advance()
        return value


def _text(token: _Token) -> str | None:
    return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL) if token.kind == "text" else None


def _number(token: _Token) -> int | None:
    return int(token.text) if token.kind == "number" else None


_STATUSES = {status.value.lower(): status for status in WorkflowStatus}


def _status(token: _Token) -> WorkflowStatus | None:
    return _STATUSES.get((_text(token) or "").lower())


def _time(token: _Token) -> int | None:
    text = _text(token)
    if text is None:
        return _number(token)
    try:
        found = datetime.fromisoformat(text)
        aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return round(aware.timestamp() * 1_000)
    except (ValueError, OverflowError):
        return None


_READ: dict[Kind, Callable[[_Token], str | int | None]] = {
    Kind.TEXT: _text,
    Kind.STATUS: _status,
    Kind.TIME: _time,
    Kind.NUMBER: _number,
}
