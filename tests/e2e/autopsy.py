"""Judges a victim's work by its log, its ledger and what was acknowledged to its client."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from orchestrator.codec import avro
from orchestrator.engine.validity import Validity
from orchestrator.log.embedded import EmbeddedLog
from orchestrator.log.port import Record
from orchestrator.log.topics import COMMANDS, HISTORY
from orchestrator.protocol import events as e
from orchestrator.protocol.commands import SignalWorkflow, StartWorkflow
from orchestrator.protocol.records import Claim, Turn
from orchestrator.protocol.views import History
from orchestrator.testing.replayer import Replayer
from tests.e2e.victim import POKES, Line, Notes, Steady
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
    """All that is known of a folder whose engine is gone."""

    def __init__(self, folder: Path) -> None:
        with EmbeddedLog(folder / "data") as log:
            histories = {p: _records(log, HISTORY, p) for p in range(log.partitions)}
            commands = [record for p in range(log.partitions) for record in _records(log, COMMANDS, p)]
        self.facts = checkers.read(histories)
        self.generations = {p: _generations(records) for p, records in histories.items()}
        self.commands = [avro.decode_command(record.value or b"") for record in commands]
        self.acknowledged = Notes.read(folder / "acknowledged")
        self.ledger = [
            Line(int(words[0]), int(words[1]), words[2], int(words[3]), int(words[4]))
            for words in Notes.read(folder / "ledger")
        ]

    def judge(self) -> None:
        """Raise ``Violation`` if anything was lost, repeated, or did not end."""
        for check in CHECKERS:
            check(self.facts)
        self._one_run_per_id()
        self._one_close_per_run()
        self._one_effect_per_accepted_command()
        self._no_recorded_activity_ran_again()
        self._replays()

    def _one_run_per_id(self) -> None:
        runs = Counter(turns[0].workflow_id for turns in self.facts.runs.values())
        twice = [id for id, count in runs.items() if count > 1]
        _demand(not twice, f"started twice by one request: {twice[:3]}")

    def _one_close_per_run(self) -> None:
        for run_id, turns in self.facts.runs.items():
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
        for run_id, turns in self.facts.runs.items():
            for turn in turns:
                for cause in turn.causes:
                    effects[cause.request_id].append(run_id)
        for step, id, *run in self.acknowledged:
            if step != "result":
                found = effects[f"{id}/{step}"]
                _demand(len(found) == 1, f"{step} of {id} was acknowledged and has {len(found)} effects")
                _demand(not run or run == found, f"{id} was acknowledged as {run}, and is {found}")
        for command in self.commands:
            if isinstance(command, StartWorkflow | SignalWorkflow):
                found = effects[command.request_id]
                _demand(len(found) == 1, f"{command.request_id} was durable and has {len(found)} effects")

    def _no_recorded_activity_ran_again(self) -> None:
        completed: dict[tuple[str, int], tuple[int, int]] = {}
        for partition, turns in self.facts.turns.items():
            for turn in turns:
                for event in turn.events:
                    if isinstance(event, e.ActivityCompleted):
                        generation = self.generations[partition][turn.epoch]
                        completed[turn.run_id, event.activity_id] = (generation, event.attempt)
        attempts: set[tuple[str, int, int]] = set()
        for line in self.ledger:
            attempt = (line.run_id, line.activity_id, line.attempt)
            _demand(attempt not in attempts, f"an attempt ran twice: {line}")
            attempts.add(attempt)
            generation, last = completed[line.run_id, line.activity_id]
            words = f"{line} ran after its completion was recorded (life {generation}, attempt {last})"
            _demand(line.generation <= generation and line.attempt <= last, words)
        unseen = [key for key, (_, last) in completed.items() if (*key, last) not in attempts]
        _demand(not unseen, f"recorded and never ran: {unseen[:3]}")

    def _replays(self) -> None:
        replayer = Replayer([Steady])
        for run_id, turns in self.facts.runs.items():
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


def _generations(records: list[Record]) -> dict[int, int]:
    """The generation of each epoch: on the embedded log, how often the folder was opened by then."""
    validity = Validity()
    generations: dict[int, int] = {}
    for record in records:
        decoded: Claim | Turn = avro.decode(record.value or b"", HISTORY)
        if validity.judge(decoded):
            generations[validity.epoch] = validity.generation
    return generations


def _demand(holds: bool, words: str) -> None:
    if not holds:
        raise checkers.Violation(words)
