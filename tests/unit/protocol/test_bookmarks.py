"""Bookmarks as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.protocol.bookmarks import bookmark_text, parse_bookmark


@given(st.dictionaries(st.integers(0, 2**31), st.integers(0, 2**63)))
def test_what_is_written_is_read(offsets: dict[int, int]) -> None:
    assert parse_bookmark(bookmark_text(offsets)) == offsets


def test_the_higher_of_two_offsets_counts() -> None:
    assert parse_bookmark("3-7,1-1,3-9,3-2") == {3: 9, 1: 1}


@pytest.mark.parametrize("text", ["3", "3-", "-7", "3-x", "3-7,", "3--7", " 3-7", "٣-7"])
def test_what_no_answer_has_given_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is none that an answer has given"):
        parse_bookmark(text)
