"""Schemas of the versions that write to one log, exchanged over ``meta``.

Whoever writes leaves its schemas there once; whoever reads learns those of the others, at its start and
when new ones come, so that an older process reads what a newer one writes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from orchestrator.codec import avro
from orchestrator.log.port import Log, Record
from orchestrator.log.topics import META

_logger = logging.getLogger(__name__)

SCHEMA_KEY = b"schema/"
"""Key of a schema on ``meta``, before its id: whoever meets the id in a record finds the schema here."""

READ_RECORDS = 500
"""Read at once; a schema has some 20 KB."""


class Schemas:
    """What is known of the schemas on one log."""

    def __init__(self) -> None:
        self._offset = 0
        self._known: set[bytes] = set()

    def follow(self, log: Log) -> None:
        """Learn all that there is by now; from here on a poll brings what is new, for :meth:`take`."""
        while records := log.read(META, 0, self._offset, READ_RECORDS):
            for record in records:
                self.take(record)
        log.seek(META, 0, self._offset)

    def take(self, record: Record) -> bool:
        """The next record of ``meta``; whether it is a schema that was not known here."""
        self._offset = record.offset + 1
        if not record.key.startswith(SCHEMA_KEY) or record.value is None or record.key in self._known:
            return False
        self._known.add(record.key)
        try:
            number = int(record.key.removeprefix(SCHEMA_KEY))
            if number in avro.own_ids():  # to read it would take milliseconds of each process's start
                return False
            avro.register(record.value.decode(), number)
        except ValueError as error:
            _logger.warning("%s of meta is of no use: %s", record.key, error)
            return False
        return True

    def ours(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of our own schemas that are to be left on ``meta``, for they are not there."""
        for number, schema in avro.DEFAULT.schemas().values():
            key = SCHEMA_KEY + str(number).encode()
            if key not in self._known:
                yield key, schema.encode()
