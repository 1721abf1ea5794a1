"""Records in RocksDB: the storage below the embedded log. No threads, no knowledge of topics.

Keys (raw bytes, so that RocksDB's order is the log's order):

    ``r`` topic ``\\0`` partition(u16) offset(u64)  →  a record, see ``_HEAD``
    ``m`` name                                     →  a mark: small facts about the log itself

Integers are big-endian. A record's value is ``_HEAD``, key, headers (MessagePack, empty if none), value.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from rocksdict import DBRecoveryMode, Options, Rdict, WriteBatch

from orchestrator.errors import ConfigError, LogError
from orchestrator.log.port import Record

_logger = logging.getLogger(__name__)

_HEAD = struct.Struct(">BqII")
"""Flags (bit 0: a tombstone), append time in ms, bytes of the key, bytes of the headers."""

_PLACE = struct.Struct(">HQ")
_TOMBSTONE = 1
_NO_HEADERS: Mapping[str, bytes] = {}
_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(dict[str, bytes]).decode

WRITE_BUFFER_BYTES = 8 * 1024 * 1024
"""One memtable. RocksDB's default of 64 MiB is made for servers."""

MAX_WAL_BYTES = 64 * 1024 * 1024
"""What is replayed at most when the log is opened: below a second."""

MAX_OPEN_FILES = 256
"""Well below the usual limit of 1,024 file descriptors, which all roles of a process share."""


class RecordStore:
    """One RocksDB of records and marks. Methods may be called from any thread.

    Raises:
        ConfigError: the database cannot be opened, or is damaged.
        LogError: a later read or write failed.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path
        try:
            self._db = Rdict(str(path), _options(create))
        except Exception as error:
            raise ConfigError(
                f"the log in {path} cannot be opened: {error}. Nothing was changed. If the disk is healthy "
                f"and the folder is writable, the log is damaged: restore the folder from a copy, or move it "
                f"away to begin with an empty log"
            ) from error
        self._closed = False

    def write(self, records: Iterable[Record]) -> None:
        """Write records in one batch, all or nothing; durable after :meth:`sync`."""
        batch = WriteBatch(raw_mode=True)
        for record in records:
            batch.put(_key(record.topic, record.partition, record.offset), _pack(record))
        self._write(batch)

    def sync(self) -> None:
        """Make everything written so far durable. Lets other threads run while the disk works."""
        try:
            self._db.flush_wal(True)
        except Exception as error:
            raise LogError(f"a sync of {self._path} failed: {error}") from error

    def mark(self, name: str) -> bytes | None:
        """The mark of that name."""
        try:
            value: bytes | None = self._db.get(b"m" + name.encode())
        except Exception as error:
            raise LogError(f"a read of {self._path} failed: {error}") from error
        return value

    def put_marks(self, marks: Mapping[str, bytes]) -> None:
        """Write marks in one batch; durable after :meth:`sync`."""
        batch = WriteBatch(raw_mode=True)
        for name, value in marks.items():
            batch.put(b"m" + name.encode(), value)
        self._write(batch)

    def last_offset(self, topic: str, partition: int) -> int | None:
        """The offset of a partition's last record; None if it has none."""
        prefix = _prefix(topic, partition)
        try:
            cursor = self._db.iter()
            cursor.seek_for_prev(prefix + b"\xff" * 8)
            found = cursor.key() if cursor.valid() else None
            cursor.status()
        except Exception as error:
            raise LogError(f"a read of {self._path} failed: {error}") from error
        if found is None or not found.startswith(prefix):
            return None
        return int.from_bytes(found[-8:], "big")

    def scan(self, topic: str, partition: int, offset: int, end: int) -> Iterator[Record]:
        """The records with ``offset`` ≤ their offset < ``end``, in order."""
        prefix = _prefix(topic, partition)
        try:
            cursor = self._db.iter()
            cursor.seek(_key(topic, partition, offset))
            while cursor.valid():
                key: bytes = cursor.key()
                if not key.startswith(prefix):
                    break
                at = int.from_bytes(key[-8:], "big")
                if at >= end:
                    break
                yield _unpack(topic, partition, at, cursor.value())
                cursor.next()
            cursor.status()  # raises if the cursor ended because of an error, not at the end
        except Exception as error:
            raise LogError(f"a read of {topic}-{partition} in {self._path} failed: {error}") from error

    def delete(self, topic: str, partition: int, offsets: Iterable[int]) -> None:
        """Delete single records in one batch."""
        batch = WriteBatch(raw_mode=True)
        for offset in offsets:
            batch.delete(_key(topic, partition, offset))
        self._write(batch)

    def delete_range(self, topic: str, partition: int, offset: int, end: int) -> None:
        """Delete the records with ``offset`` ≤ their offset < ``end``."""
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(_key(topic, partition, offset), _key(topic, partition, end))
        self._write(batch)

    def close(self) -> None:
        """Close the database. Closing it again does nothing, and neither does a disk that fails now:
        what was to be durable was synced.
        """
        if not self._closed:
            self._closed = True
            try:
                self._db.close()
            except Exception as error:
                _logger.warning("the log in %s was not closed in order: %s", self._path, error)

    def _write(self, batch: WriteBatch) -> None:
        try:
            self._db.write(batch)
        except Exception as error:
            raise LogError(f"a write to {self._path} failed: {error}") from error


def _options(create: bool) -> Any:
    options = Options(raw_mode=True)
    options.create_if_missing(create)
    # A torn record at the very end was never acknowledged; damage anywhere else must not be skipped.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_total_wal_size(MAX_WAL_BYTES)
    options.set_max_open_files(MAX_OPEN_FILES)
    options.set_keep_log_file_num(2)
    return options


def _prefix(topic: str, partition: int) -> bytes:
    return b"r%b\x00%b" % (topic.encode(), partition.to_bytes(2, "big"))


def _key(topic: str, partition: int, offset: int) -> bytes:
    return b"r%b\x00%b" % (topic.encode(), _PLACE.pack(partition, offset))


def _pack(record: Record) -> bytes:
    headers = _encode_headers(record.headers) if record.headers else b""
    flags = _TOMBSTONE if record.value is None else 0
    head = _HEAD.pack(flags, record.time_ms, len(record.key), len(headers))
    return b"".join((head, record.key, headers, record.value or b""))


def _unpack(topic: str, partition: int, offset: int, data: bytes) -> Record:
    flags, time_ms, key_bytes, header_bytes = _HEAD.unpack_from(data)
    key_end = _HEAD.size + key_bytes
    headers_end = key_end + header_bytes
    headers = _decode_headers(data[key_end:headers_end]) if header_bytes else _NO_HEADERS
    value = None if flags & _TOMBSTONE else data[headers_end:]
    return Record(topic, partition, offset, time_ms, data[_HEAD.size : key_end], value, headers)
