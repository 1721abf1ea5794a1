"""Bookmarks: how far history has to be shown, so that whoever wrote something reads it too.

An answer says where on history its turn stands. As text that is ``partition-offset``; what several answers
said is joined by commas: ``3-1542,7-88``. Programs hand it on and need not look inside.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.errors import UsageError


def bookmark_text(offsets: Mapping[int, int]) -> str:
    """The text of offsets of history by partition; "" if there are none."""
    return ",".join(f"{partition}-{offset}" for partition, offset in sorted(offsets.items()))


def parse_bookmark(text: str) -> dict[int, int]:
    """The offsets in a bookmark, by partition; the highest where one is named twice.

    Raises:
        UsageError: it is not one that an answer has given.
    """
    found: dict[int, int] = {}
    for word in text.split(",") if text else ():
        partition, _, offset = word.partition("-")
        if not (partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()):
            raise UsageError(
                f"the bookmark {text!r} is none that an answer has given; expected 'partition-offset'"
            )
        found[int(partition)] = max(int(offset), found.get(int(partition), 0))
    return found
