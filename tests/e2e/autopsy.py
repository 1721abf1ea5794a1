"""Judges steady work by its log, its ledger and what was acknowledged to its client."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from orchestrator.codec import avro
from orchestrator.engine.validity import Validity
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.port import Record
from orchestrator.log.topics import COMMANDS, HISTORY, USER_TOPICS
from orchestrator.protocol import events as e
from orchestrator.protocol.commands import Command, SignalWorkflow, StartWorkflow
from orchestrator.protocol.records import Claim, Turn
from orchestrator.protocol.views import History
from orchestrator.testing import Replayer
from tests.e2e.steady import POKES, PREFIX, Notes, Steady, read_ledger
from tests.e2e.victim import TOPIC
from tests.simulation import checkers

READ_RECORDS = 1_000

CHECKERS = (
    checkers.one_effect_per_request,
    checkers.no_command_twice,
    checkers.marks_cover,
    checkers.timers_are_not_early,
    checkers.everything_closed,
)


class Autopsy:
    """All that is known of steady work that is over: from the log, and from the folder of its notes.

    Args:
        histories: all records of history, by partition.
        commands: all records of commands.
        folder: of the notes.
        generations: the engine's generation of each epoch, by partition; without them only attempts tell
            what was later than what.
    """

    def __init__(
        self,
        histories: dict[int, list[Record]],
        commands: Iterable[Record],
        folder: Path,
        generations: dict[int, dict[int, int]] | None = None,
    ) -> None:
        self.facts = checkers.read(histories)
        self._generations = generations
        self.commands = [command for record in commands if (command := _decode(record)) is not None]
        self.acknowledged = Notes.read(folder / "acknowledged")
        self.ledger = read_ledger(folder)
        self._steady = {
            run_id: turns
            for run_id, turns in self.facts.runs.items()
            if turns[0].workflow_id.startswith(PREFIX)
        }

    @classmethod
    def of_engine(cls, folder: Path) -> Self:
        """Of an engine that is gone, with its data in the folder of the notes.

        Raises ``Violation`` if its business events are not on their topic, or there twice.
        """
        with EmbeddedLog(folder / "data") as log:
            histories = {p: _records(log, HISTORY, p) for p in range(log.partitions)}
            commands = [record for p in range(log.partitions) for record in _records(log, COMMANDS, p)]
            with log.changed:
                told = log.has_topic(USER_TOPICS + TOPIC, 0)
            published = _records(log, USER_TOPICS + TOPIC, 0) if told else []
        generations = {p: _generations(records) for p, records in histories.items()}
        checkers.published_once(checkers.read(histories), {TOPIC: published})
        return cls(histories, commands, folder, generations)

    def judge(self) -> None:
        """Raise ``Violation`` if anything was lost, repeated, or did not end."""
        for check in CHECKERS:
            check(self.facts)
        self._one_run_per_id()
        self._one_close_per_run()
        self._one_effect_per_accepted_command()
        self._no_recorded_activity_ran_again()
        self._nothing_ran_undispatched()
        self._replays()

    def _one_run_per_id(self) -> None:
        runs = Counter(turns[0].workflow_id for turns in self._steady.values())
        twice = [id for id, count in runs.items() if count > 1]
        _demand(not twice, f"started twice by one request: {twice[:3]}")

    def _one_close_per_run(self) -> None:
        for run_id, turns in self._steady.items():
            closes = [
                event for turn in turns for event in turn.events if isinstance(event, e.WorkflowCompleted)
            ]
            _demand(len(closes) == 1, f"{run_id} has {len(closes)} closes")
            pokes = [
                event for turn in turns for event in turn.events if isinstance(event, e.WorkflowSignaled)
            ]
            _demand(len(pokes) == len(POKES), f"{run_id} got {len(pokes)} signals")

    def _one_effect_per_accepted_command(self) -> None:
        """Accepted: acknowledged to the client, or durable on ``commands``."""
        effects: dict[str, list[str]] = defaultdict(list)
        for run_id, turns in self._steady.items():
            for turn in turns:
                for cause in turn.causes:
                    effects[cause.request_id].append(run_id)
        for step, id, *run in self.acknowledged:
            if step != "result":
                found = effects[f"{id}/{step}"]
                _demand(len(found) == 1, f"{step} of {id} was acknowledged and has {len(found)} effects")
                _demand(not run or run == found, f"{id} was acknowledged as {run}, and is {found}")
        for command in self.commands:
            steady = isinstance(command, StartWorkflow | SignalWorkflow)
            if steady and command.workflow_id.startswith(PREFIX):
                found = effects[command.request_id]
                _demand(len(found) == 1, f"{command.request_id} was durable and has {len(found)} effects")

    def _no_recorded_activity_ran_again(self) -> None:
        completed: dict[tuple[str, int], tuple[int, int]] = {}
        for partition, turns in self.facts.turns.items():
            for turn in turns:
                for event in turn.events:
                    if isinstance(event, e.ActivityCompleted):
                        generation = self._generations[partition][turn.epoch] if self._generations else 0
                        completed[turn.run_id, event.activity_id] = (generation, event.attempt)
        attempts: set[tuple[str, int, int]] = set()
        for line in self.ledger:
            attempt = (line.run_id, line.activity_id, line.attempt)
            _demand(attempt not in attempts, f"an attempt ran twice: {line}")
            attempts.add(attempt)
            if (line.run_id, line.activity_id) not in completed:
                continue
            generation, last = completed[line.run_id, line.activity_id]
            words = f"{line} ran after its completion was recorded (life {generation}, attempt {last})"
            _demand(line.generation <= generation and line.attempt <= last, words)
        unseen = [key for key, (_, last) in completed.items() if (*key, last) not in attempts]
        _demand(not unseen, f"recorded and never ran: {unseen[:3]}")

    def _nothing_ran_undispatched(self) -> None:
        dispatched = {delivery[:3] for delivery in checkers.dispatched(self.facts)}
        ghosts = [line for line in self.ledger if line[2:] not in dispatched]
        _demand(not ghosts, f"attempts ran that no turn that counts dispatched: {ghosts[:3]}")

    def _replays(self) -> None:
        replayer = Replayer([Steady])
        for run_id, turns in self._steady.items():
            history = History(
                workflow_id=turns[0].workflow_id, run_id=run_id, workflow_type="Steady", turns=tuple(turns)
            )
            replayer.replay(history)


def _records(log: EmbeddedLog, topic: str, partition: int) -> list[Record]:
    found: list[Record] = []
    offset = 0
    while records := log.read(topic, partition, offset, READ_RECORDS):
        found += records
        offset = records[-1].offset + 1
    return found


def _decode(record: Record) -> Command | None:
    try:
        return avro.decode_command(record.value or b"")
    except avro.DecodeError:
        return None


def _generations(records: list[Record]) -> dict[int, int]:
    """The generation of each epoch: on the embedded log, how often the folder was opened by then."""
    validity = Validity()
    generations: dict[int, int] = {}
    for record in records:
        if record.value is None:  # a tombstone: it judges nothing
            continue
        decoded: Claim | Turn = avro.decode(record.value, HISTORY)
        if validity.judge(decoded):
            generations[validity.epoch] = validity.generation
    return generations


def _demand(holds: bool, words: str) -> None:
    if not holds:
        raise checkers.Violation(words)
