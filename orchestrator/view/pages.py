"""Tokens by which a list is continued: the key of its last row, as text."""

from __future__ import annotations

import base64

from orchestrator.errors import UsageError


def token(key: bytes) -> str:
    """The token that continues a list after a key."""
    return base64.urlsafe_b64encode(key).decode()


def read_token(page: str) -> bytes:
    """The key in a token; empty for the first page.

    Raises:
        UsageError: no list has given such a token.
    """
    try:
        return base64.urlsafe_b64decode(page.encode())
    except ValueError:
        raise UsageError(f"the page token {page!r} is not one that a list has given") from None
