"""The read side's loop: follows all partitions of history into stores of its own.

A step::

    1  ask             where do those partitions end that somebody wants to see as they are now?
    2  poll            records of history, beats, dead letters, schemas of newer versions
    3  fold            records become rows; what cannot be folded is set aside, with the reason
    4  write           what was set aside; then each partition, in one batch with its offset
    5  look            is a partition caught up? does a store have to be opened, or read anew?

A crash between any two of them loses nothing: a store stands at one offset, and goes on there. A letter
that is written twice is kept once.

It joins no group and appends nothing: any number of views follow one log, each in a folder of its own.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic, time_ns

from orchestrator.codec import avro
from orchestrator.errors import LogError, Unavailable
from orchestrator.log.folder import FolderLock
from orchestrator.log.letters import letter_of
from orchestrator.log.port import Log, Record
from orchestrator.log.schemas import Schemas
from orchestrator.log.topics import DEAD_LETTERS, HISTORY, META, WORKERS
from orchestrator.protocol.tasks import DeadLetter
from orchestrator.protocol.views import DeadLetterPage, Queues, ViewStatus
from orchestrator.store.letters import Letters
from orchestrator.store.partition_store import PartitionStore
from orchestrator.view.followed import Followed
from orchestrator.view.pages import read_token, token
from orchestrator.view.queues import queues_of, served
from orchestrator.view.roster import Roster

log = logging.getLogger(__name__)

POLL_S = 1.0
"""A step is made at least so often: to note that all is well, and to try again what is not."""

RETRY_S = 1.0
"""Between attempts to reach a log that is away."""

LOOK_MS = 5_000
"""So often the ends of all partitions are asked for, so that a lag is seen that no poll shows."""

ASK_S = 2.0
"""For so long somebody waits for a partition to be as it was on the log when they asked."""


class _Question:
    """Somebody waits until a partition has been read up to ``end``; -1: to where it ends now."""

    def __init__(self, partition: int, end: int = -1) -> None:
        self.partition = partition
        self.end = end
        self.answered = threading.Event()


class Materializer:
    """Follows a log. :meth:`run`, or :meth:`step` and :meth:`close`, are for one thread, all else for any.

    Args:
        log: a member of its own; closed at the end.
        folder: where the stores are, for this process alone.
        log_id: names the log's content; stores of another log are made again.
        now_ms: the clock, Unix milliseconds.
        explain: why the log did not answer, in words for people; "" for the words of the error.

    Raises:
        DataFolderInUse: another process follows a log in this folder.
        ConfigError: the folder cannot be used.
    """

    def __init__(
        self,
        log: Log,
        folder: Path,
        *,
        log_id: str,
        now_ms: Callable[[], int] = lambda: time_ns() // 1_000_000,
        explain: Callable[[], str] = lambda: "",
    ) -> None:
        self._explain = explain
        self._log, self._folder, self._log_id, self._now_ms = log, folder, log_id, now_ms
        self._lock = FolderLock(folder)
        self._stopping = threading.Event()
        self._schemas = Schemas()
        self._roster = Roster()
        self._asked: deque[_Question] = deque()
        """Questions that the loop has not seen yet."""
        self._questions: list[_Question] = []
        self._partitions: tuple[Followed, ...] = ()
        self._letters = Letters(PartitionStore(folder / "letters", log_id=log_id))
        self._letters_read = self._letters.offset
        self._looked_ms = 0
        self._trouble = ""
        self._turned_s = monotonic()

    # ----------------------------------------------------------------------------------------- loop

    def run(self) -> None:
        """Step until :meth:`stop`, then close everything. A log that is away is waited for."""
        try:
            while not self._stopping.is_set():
                self._turned_s = monotonic()
                try:
                    self.step(POLL_S)
                    self._note_trouble("")
                except (LogError, Unavailable) as error:
                    self._note_trouble(self._explain() or str(error))
                    self._answer(everything=True)
                    self._stopping.wait(RETRY_S)
        finally:
            self.close()

    def stop(self) -> None:
        """End the loop soon."""
        self._stopping.set()
        self._log.wake()

    def close(self) -> None:
        """Close the stores and the log. :meth:`run` ends with it."""
        self._stopping.set()
        self._answer(everything=True)
        for followed in self._partitions:
            followed.close()
        self._letters.close()
        self._log.close()
        self._lock.release()

    def step(self, timeout_s: float = 0.0) -> None:
        """One turn of the loop; see the module's docstring.

        Raises:
            LogError, Unavailable: the log does not answer; step again later.
        """
        if not self._partitions:
            self._begin()
        self._ask()
        letters = self._fold(self._log.poll(timeout_s).records)
        self._write(letters)
        self._look()

    def _begin(self) -> None:
        self._schemas.follow(self._log)
        self._log.seek(DEAD_LETTERS, 0, self._letters_read)
        self._log.seek(WORKERS, 0, self._log.end(WORKERS, 0))
        self._partitions = tuple(
            Followed(number, self._log, self._folder / "history", self._log_id, self._now_ms)
            for number in range(self._log.partitions(HISTORY))
        )
        self._look()

    def _note_trouble(self, trouble: str) -> None:
        """What is wrong with the log now. It is over when the log has answered all questions of a step."""
        if bool(trouble) is not bool(self._trouble):
            log.warning("the log is waited for: %s" if trouble else "the log is there again%s", trouble)
        self._trouble = trouble

    # ----------------------------------------------------------------------------------------- fold

    def _fold(self, records: Iterable[Record]) -> list[DeadLetter]:
        """All that a poll has brought; returns what is to be kept of what nobody could use.

        Nothing here asks the log: if that failed, the rest of what was polled would be lost.
        """
        letters: list[DeadLetter] = []
        aside: list[DeadLetter] = []
        for record in records:
            try:
                reason = _TAKE[record.topic](self, record, letters)
            except avro.DecodeError as error:
                reason = str(error)
            if reason:
                aside.append(letter_of(record, reason))
        if aside:
            first = aside[0]
            where = f"{first.topic}-{first.partition} at {first.offset}"
            log.warning("%d records are set aside, the first is %s: %s", len(aside), where, first.reason)
        return letters + aside

    def _on_history(self, record: Record, letters: list[DeadLetter]) -> str:
        return self._partitions[record.partition].take(record)

    def _on_beat(self, record: Record, letters: list[DeadLetter]) -> str:
        if record.value is not None:
            self._roster.take(avro.decode(record.value, WORKERS), self._now_ms())
        return ""

    def _on_letter(self, record: Record, letters: list[DeadLetter]) -> str:
        self._letters_read = record.offset + 1
        if record.value is not None:
            letters.append(avro.decode(record.value, DEAD_LETTERS))
        return ""

    def _on_meta(self, record: Record, letters: list[DeadLetter]) -> str:
        """A newer version's schema, which may come after what was written by it."""
        if self._schemas.take(record):
            for followed in self._partitions:
                followed.reconsider()
        return ""

    # ---------------------------------------------------------------------------------------- write

    def _write(self, letters: list[DeadLetter]) -> None:
        """Set aside first: after a crash in between, the records come again, and their letters are known."""
        self._letters.put(letters, offset=self._letters_read)
        for followed in self._partitions:
            followed.write()

    # ----------------------------------------------------------------------------------------- look

    def _look(self) -> None:
        now_ms = self._now_ms()
        if now_ms - self._looked_ms >= LOOK_MS or self._trouble:
            for followed in self._partitions:
                followed.end = self._log.end(HISTORY, followed.number)
            self._looked_ms = now_ms
        for followed in self._partitions:
            followed.look()
        self._answer()

    # ------------------------------------------------------------------------------------ questions

    def catch_up(self, partition: int, end: int = -1) -> None:
        """Wait until a partition is read up to ``end`` (-1: where it ends now), but for ``ASK_S`` at most."""
        if not self._stopping.is_set() and not self._trouble:
            question = _Question(partition, end)
            self._asked.append(question)
            self._log.wake()
            question.answered.wait(ASK_S)

    def _ask(self) -> None:
        while self._asked:
            question = self._asked.popleft()
            self._questions.append(question)
            if question.end < 0:
                question.end = self._log.end(HISTORY, question.partition)

    def _answer(self, *, everything: bool = False) -> None:
        """Tell those whose question is answered; all of them, if nothing better is to be hoped for."""
        if everything:
            self._questions += [self._asked.popleft() for _ in range(len(self._asked))]
        open_questions = []
        for question in self._questions:
            if everything or self._partitions[question.partition].offset >= question.end:
                question.answered.set()
            else:
                open_questions.append(question)
        self._questions = open_questions

    # ------------------------------------------------------------------------------------- what is

    def stores(self) -> list[PartitionStore | None]:
        """The store of each partition, by number; None where it is not caught up yet."""
        return [followed.shown() for followed in self._partitions]

    @property
    def ready(self) -> bool:
        """Whether all partitions were caught up at least once."""
        return bool(self._partitions) and all(followed.ready for followed in self._partitions)

    @property
    def silent_s(self) -> float:
        """How long ago the loop of :meth:`run` turned last."""
        return monotonic() - self._turned_s

    @property
    def trouble(self) -> str:
        """Why nothing new is read now: the log does not answer; "" if it does."""
        return self._trouble

    def status(self) -> ViewStatus:
        """How this view stands."""
        now_ms = self._now_ms()
        return ViewStatus(
            partitions=tuple(followed.status() for followed in self._partitions),
            workers=self._roster.workers(now_ms),
            coordinators=self._roster.coordinators(now_ms),
            dead_letters=len(self._letters),
            trouble=self._trouble,
        )

    def queues(self) -> Queues:
        """The task queues: what waits, and who serves them."""
        now_ms = self._now_ms()
        return queues_of(self._roster.workers(now_ms), self._roster.coordinators(now_ms))

    def served(self) -> frozenset[str]:
        """The queues that some worker takes new work from."""
        return served(self._roster.workers(self._now_ms()))

    def dead_letters(self, limit: int = 100, page: str = "") -> DeadLetterPage:
        """What nobody could use, newest first; ``page`` continues an earlier list."""
        found: list[DeadLetter] = []
        for key, letter in self._letters.newest(read_token(page)):
            found.append(letter)
            if len(found) == limit:
                return DeadLetterPage(letters=tuple(found), next_page=token(key))
        return DeadLetterPage(letters=tuple(found))


_TAKE: Mapping[str, Callable[[Materializer, Record, list[DeadLetter]], str]] = {
    HISTORY: Materializer._on_history,
    WORKERS: Materializer._on_beat,
    DEAD_LETTERS: Materializer._on_letter,
    META: Materializer._on_meta,
}
"""Takes a record of a topic; returns why it is to be set aside, "" if all is well."""
