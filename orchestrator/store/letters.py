"""Dead letters in a store of their own: the newest ones, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from orchestrator.protocol.tasks import DeadLetter
from orchestrator.store import keys
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.rows import Row

MAX_LETTERS = 10_000
"""Kept at most; the oldest go first. Whoever has more has one problem ten thousand times."""

MAX_VALUE_BYTES = 4 * 1024
"""Kept of a record's bytes: enough to see what it is. The log has all of them."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(DeadLetter).decode

_Place = tuple[str, int, int]


class Letters:
    """What nobody could use, and why. One thread puts, any thread reads."""

    def __init__(self, store: PartitionStore) -> None:
        """``store`` holds letters alone; its checkpoint says how far ``dead-letters`` was read."""
        self._store = store
        found = [(keys.number_of_letter(key), _decode(value)) for key, value in store.letters()]
        self._numbers: dict[_Place, int] = {_place(letter): number for number, letter in reversed(found)}
        """Oldest first."""
        self._next = found[0][0] + 1 if found else 0

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._numbers)

    @property
    def offset(self) -> int:
        """The next one of ``dead-letters`` to read."""
        return self._store.checkpoint.offset

    def put(self, letters: Iterable[DeadLetter], *, offset: int | None = None) -> None:
        """Keep letters, in one batch with the offset that was reached. One that is known is not news."""
        rows: list[Row] = []
        for letter in letters:
            place = _place(letter)
            if place in self._numbers:
                continue
            kept = msgspec.structs.replace(letter, value=letter.value[:MAX_VALUE_BYTES])
            rows.append(Row(keys.letter(self._next), _encode(kept)))
            self._numbers[place] = self._next
            self._next += 1
        while len(self._numbers) > MAX_LETTERS:
            rows.append(Row(keys.letter(self._numbers.pop(next(iter(self._numbers)))), None))
        reached = self.offset if offset is None else offset
        if rows or reached != self.offset:
            self._store.apply(rows, msgspec.structs.replace(self._store.checkpoint, offset=reached))

    def newest(self, after: bytes = b"") -> Iterator[tuple[bytes, DeadLetter]]:
        """(resume key, letter), newest first, after a resume key."""
        for key, value in self._store.letters(after):
            yield key, _decode(value)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def _place(letter: DeadLetter) -> _Place:
    return letter.topic, letter.partition, letter.offset
