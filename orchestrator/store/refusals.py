"""Requests of one partition that were refused lately, on disk: a client's repeat is refused likewise.

They are in no history, so a new owner may decide such a repeat anew; the same owner does not, even if it was
started again in between. What is refused is written with the next batch of the store, whatever that is
about: should the process die before, the command itself is decided again.
"""

from __future__ import annotations

from orchestrator.protocol.commands import Rejection
from orchestrator.store import keys
from orchestrator.store.partition_store import PartitionStore
from orchestrator.store.rows import Refusal, Row, encode_refusal

KEPT_MS = 600_000
"""Clients give up a request, or repeat it, well within this time."""

MAX_KEPT = 100_000
"""Bounds the disk that refused requests can take; the oldest are forgotten first."""

FORGET_ROWS = 1_000
"""Forgotten at a time, so that a step stays short."""


class Refusals:
    """Remembers each refused request for ``KEPT_MS``."""

    def __init__(self, store: PartitionStore) -> None:
        """Remember what ``store`` has."""
        self._store = store
        self._fresh: dict[bytes, Refusal] = {}
        self._resume = b""
        self._kept = sum(1 for _ in store.refusals(b""))

    def note(self, workflow_id: str, request_id: str, rejection: Rejection, now_ms: int) -> None:
        """A request was refused."""
        self._fresh[keys.refusal(workflow_id, request_id)] = Refusal(now_ms + KEPT_MS, rejection)

    def find(self, workflow_id: str, request_id: str, now_ms: int) -> Rejection | None:
        """The answer to a request that was refused lately."""
        if not (self._kept or self._fresh):
            return None
        key = keys.refusal(workflow_id, request_id)
        found = self._fresh.get(key) or self._store.refusal(key)
        return found.rejection if found is not None and found.expires_ms > now_ms else None

    def take_rows(self) -> list[Row]:
        """The rows of what was refused since the last call; to be written now."""
        rows: list[Row] = []
        for key, refusal in self._fresh.items():
            rows.append(Row(key, encode_refusal(refusal)))
            rows.append(Row(keys.refusal_expiry(refusal.expires_ms, key), b""))
        self._kept += len(self._fresh)
        self._fresh.clear()
        return rows

    def forget(self, now_ms: int) -> list[Row]:
        """The rows of what is to be remembered no longer; to be deleted now."""
        rows: list[Row] = []
        for row, expires_ms, key in self._store.refusals(self._resume):
            forgotten = len(rows) // 2
            if forgotten == FORGET_ROWS or (expires_ms > now_ms and self._kept - forgotten <= MAX_KEPT):
                break
            rows += [Row(row, None), Row(key, None)]
            self._resume = row + b"\0"
        self._kept -= len(rows) // 2
        return rows
