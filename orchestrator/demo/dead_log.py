"""What the log of an engine that is dead says: the witness of what was recorded before the kill."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from orchestrator.codec import avro
from orchestrator.engine.validity import Parts, Validity
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.port import Log, Record
from orchestrator.log.topics import HISTORY
from orchestrator.protocol.events import WorkflowStarted
from orchestrator.protocol.records import Turn
from orchestrator.protocol.views import History

READ_RECORDS = 1_000
"""Per read: bounds the memory that a long log takes."""

_NOT_THE_LOG = shutil.ignore_patterns("store", "lock", "world")


def read_dead_log(folder: Path) -> dict[str, History]:
    """The latest run of each workflow id in the log of an engine that is dead, by workflow id.

    It reads a copy, so that nothing is changed which the next engine finds.
    """
    with TemporaryDirectory(prefix="orchestrator-dead-") as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True, ignore=_NOT_THE_LOG)
        with EmbeddedLog(Path(copy)) as log:
            return histories_of(log.member())


def histories_of(log: Log) -> dict[str, History]:
    """The latest run of each workflow id, as the log itself has it."""
    runs: dict[str, list[Turn]] = {}
    for partition in range(log.partitions(HISTORY)):
        for turn in valid_turns(_records(log, partition)):
            runs.setdefault(turn.run_id, []).append(turn)
    return {turns[0].workflow_id: _history(turns) for turns in runs.values()}


def valid_turns(records: Iterable[Record]) -> Iterator[Turn]:
    """The turns of a history partition that count, each from all its parts, in order."""
    validity, parts = Validity(), Parts()
    for record in records:
        if record.value is None:
            continue
        found = avro.decode(record.value, HISTORY)
        if not validity.judge(found) or not isinstance(found, Turn):
            continue
        whole = parts.add(found)
        if whole is not None:
            yield whole


def _records(log: Log, partition: int) -> Iterator[Record]:
    offset = 0
    while records := log.read(HISTORY, partition, offset, READ_RECORDS):
        yield from records
        offset = records[-1].offset + 1


def _history(turns: list[Turn]) -> History:
    first = turns[0].events[0]
    assert isinstance(first, WorkflowStarted)
    return History(
        workflow_id=turns[0].workflow_id,
        run_id=turns[0].run_id,
        workflow_type=first.workflow_type,
        turns=tuple(turns),
    )
