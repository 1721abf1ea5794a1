"""Names, texts and numbers of users: what is refused, and that the rest comes out plain."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.protocol.texts import (
    MAX_INT,
    MAX_NAME_CHARS,
    MAX_SUMMARY_CHARS,
    check_int,
    check_name,
    check_summary,
    check_text,
    check_word,
)
from orchestrator.protocol.values import CancellationType, IdReusePolicy


@pytest.mark.parametrize("name", ["", "a\x00", "\ud800", "x" * (MAX_NAME_CHARS + 1), 5, None, b"a"])
def test_what_is_no_name(name: Any) -> None:
    with pytest.raises(UsageError, match="queue is "):
        check_name(name, "queue")


def test_the_longest_name_and_summary() -> None:
    assert len(check_name("x" * MAX_NAME_CHARS, "queue")) == MAX_NAME_CHARS
    assert len(check_summary("x" * MAX_SUMMARY_CHARS)) == MAX_SUMMARY_CHARS
    with pytest.raises(UsageError, match="2001 characters, at most 2000"):
        check_summary("x" * (MAX_SUMMARY_CHARS + 1))


@pytest.mark.parametrize("text", ["\ud800", 5, None, b"a"])
def test_what_is_no_text(text: Any) -> None:
    with pytest.raises(UsageError, match="summary is "):
        check_text(text, "summary")


def test_texts_come_out_plain() -> None:
    assert type(check_name(CancellationType.ABANDON, "queue")) is str
    assert type(check_text(CancellationType.ABANDON, "summary")) is str
    assert check_text("", "summary") == ""


@pytest.mark.parametrize("number", [True, 1.0, "1", None, -1, MAX_INT + 1])
def test_what_is_no_number(number: Any) -> None:
    with pytest.raises(UsageError, match="priority is "):
        check_int(number, "priority", minimum=0)


def test_a_word_is_a_member_or_its_value() -> None:
    reject = IdReusePolicy.REJECT_DUPLICATE
    assert check_word(IdReusePolicy, reject, "policy") is reject
    assert check_word(IdReusePolicy, "reject-duplicate", "policy") is reject
    for word in ("REJECT_DUPLICATE", None, 5, [], CancellationType.ABANDON):
        with pytest.raises(UsageError, match=r"policy is .*; give one of IdReusePolicy\.ALLOW_DUPLICATE,"):
            check_word(IdReusePolicy, word, "policy")
