"""Dead letters on disk: each once, newest first, bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.protocol.tasks import DeadLetter
from orchestrator.store import letters
from orchestrator.store.letters import Letters
from orchestrator.store.partition_store import PartitionStore


def opened(folder: Path, log_id: str = "log") -> Letters:
    return Letters(PartitionStore(folder, log_id=log_id))


def letter(offset: int, **fields: object) -> DeadLetter:
    return DeadLetter(
        **{"topic": "commands", "partition": 0, "offset": offset, "reason": "why"} | fields  # type: ignore[arg-type]
    )


def offsets(found: Letters) -> list[int]:
    return [letter.offset for _, letter in found.newest()]


def test_each_is_kept_once_newest_first(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.put([letter(1), letter(2), letter(1, reason="again")], offset=7)
    found.put([letter(2), letter(1, partition=1)])
    assert offsets(found) == [1, 2, 1]
    assert (len(found), found.offset) == (3, 7)
    found.close()
    found = opened(tmp_path)
    found.put([letter(1), letter(3)])
    assert offsets(found) == [3, 1, 2, 1]
    assert (len(found), found.offset) == (4, 7)
    found.close()


def test_the_oldest_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "MAX_LETTERS", 3)
    found = opened(tmp_path)
    found.put([letter(number) for number in range(2)])
    found.put([letter(number) for number in range(2, 9)])
    assert offsets(found) == [8, 7, 6]
    found.close()
    found = opened(tmp_path)
    found.put([letter(9)])
    assert offsets(found) == [9, 8, 7]
    found.close()


def test_the_first_bytes_are_kept(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.put([letter(1, value=b"x" * (letters.MAX_VALUE_BYTES + 1))])
    ((_, kept),) = found.newest()
    assert kept.value == b"x" * letters.MAX_VALUE_BYTES
    found.close()


def test_a_list_goes_on_after_a_key(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.put([letter(number) for number in range(4)])
    key, _ = list(found.newest())[1]
    assert [letter.offset for _, letter in found.newest(key)] == [1, 0]
    found.close()


def test_letters_of_another_log_are_forgotten(tmp_path: Path) -> None:
    found = opened(tmp_path)
    found.put([letter(1)], offset=5)
    found.close()
    found = opened(tmp_path, "another")
    assert (offsets(found), found.offset) == ([], 0)
    found.close()


def test_nothing_new_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = opened(tmp_path)
    found.put([letter(1)], offset=1)
    monkeypatch.setattr(PartitionStore, "apply", None)
    found.put([letter(1)], offset=1)
    found.close()
