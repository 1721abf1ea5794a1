"""Tokens of pages."""

from __future__ import annotations

import pytest

from orchestrator.errors import UsageError
from orchestrator.view.pages import read_token, token


@pytest.mark.parametrize("key", [b"", b"s\x00\xff", bytes(range(40))])
def test_a_token_is_its_key(key: bytes) -> None:
    assert read_token(token(key)) == key


@pytest.mark.parametrize("page", ["a", "%%%a"])
def test_what_no_list_gave_is_refused(page: str) -> None:
    with pytest.raises(UsageError, match="page token"):
        read_token(page)
