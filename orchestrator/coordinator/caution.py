"""Which code may be entered while some of it is suspected of ending the process (``engine/trials.py``).

::

    facts for a run ──admits? no──▶ recorded as deferred; the run waits ──▶ Position{trying} appended
                                                                                   │ read back
                    entered from now on ◀── its code was entered and left ◀── the run is resumed

Commands are consumed all the time: only code waits. A run in whose trial two owners died is blocked. It is
tried again once after each start, and blocked again after one more death. A death counts only if that owner
is gone for sure; until then the run waits, and others go first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from orchestrator.engine.state import RunState
from orchestrator.engine.trials import PROCESS_ENDED, Trials

MAX_DEATHS_IN_TRIAL = 2
"""One may be chance: a machine that failed, somebody who ended the process."""

CAUTION_S = 30.0
"""So long after a claim code is entered in trials at most: what ends the process does so soon after a start,
and trials are slow."""


class ProcessEnded(Exception):
    """The process ended when it ran this code. ``news``: its deaths are to be recorded as the reason."""

    def __init__(self, run_id: str, *, news: bool) -> None:
        self.news = news
        super().__init__(
            f"the process ended each time when it ran the code of run {run_id}: os._exit, a crash in native "
            f"code, or native code that does not return; it is tried again once after the next start"
        )


class Caution:
    """What one partition's owner may enter under its present claim."""

    def __init__(
        self, trials: Trials, *, now_s: float, commands_end: int, is_gone: Callable[[str], bool]
    ) -> None:
        """``commands_end`` is where commands ended at the claim; ``is_gone`` says whether an owner died."""
        self._trials = trials
        self._careful = trials.suspicious
        self._until_s = now_s + CAUTION_S
        self._commands_end = commands_end
        self._is_gone = is_gone
        self._waiting: OrderedDict[str, str] = OrderedDict()
        """Workflow ids of runs that wait for their trial, by run id."""
        self._blamed: dict[str, bool] = {}
        """Runs whose code is not entered under this claim, and whether that was said."""
        self._acquitted: set[str] = set()
        self._announced: tuple[str, str] | None = None
        """(run id, workflow id) whose position is under way, or that is being tried."""
        self._trying = ""

    @classmethod
    def none(cls) -> Caution:
        """Nothing is suspected."""
        return cls(Trials(), now_s=0.0, commands_end=0, is_gone=lambda owner: False)

    def admits(self, run: RunState) -> bool:
        """Whether a run's code may be entered now; if not, the run waits for its trial.

        Raises ``ProcessEnded`` if it is blamed.
        """
        if run.run_id in self._blamed:
            told, self._blamed[run.run_id] = self._blamed[run.run_id], True
            raise ProcessEnded(run.run_id, news=not told)
        if run.run_id in self._acquitted or run.run_id == self._trying:
            return True
        if not self._careful and not _was_blamed(run):
            return True
        self._waiting[run.run_id] = run.workflow_id
        return False

    def next(self, state_of: Callable[[str], RunState | None]) -> tuple[str, str] | None:
        """(run id, workflow id) of who is next: to be announced, if :meth:`announced` says so, else blamed.

        ``state_of`` gives the latest run of a workflow id.
        """
        if self._announced is not None:
            return None
        for run_id, workflow_id in list(self._waiting.items()):
            state = state_of(workflow_id)
            if state is None or state.run_id != run_id or not state.is_open:
                del self._waiting[run_id]
                continue
            owners = [owner for died, owner in self._trials.deaths if died == run_id]
            gone = sum(map(self._is_gone, owners))
            enough = 1 if _was_blamed(state) else MAX_DEATHS_IN_TRIAL
            if gone < enough <= len(owners):
                continue  # not known yet: others first
            del self._waiting[run_id]
            if gone >= enough:
                self._blamed[run_id] = False
            else:
                self._announced = run_id, workflow_id
            return run_id, workflow_id
        return None

    def announced(self) -> str:
        """The run id whose trial is announced or under way; "" if there is none."""
        return self._announced[0] if self._announced is not None else ""

    def begin(self, run_id: str) -> str:
        """A position that announces a trial was read back: the workflow id to resume; "" if there is none."""
        if self._announced is None or self._announced[0] != run_id:
            return ""
        self._trying = run_id
        return self._announced[1]

    def step_ended(self, resumes: dict[str, None], mark: int, now_s: float) -> list[str]:
        """A step is over; ``resumes`` are ids that are looked at again. Returns ids to resume.

        A trial is over when its run need not be looked at again; caution, when everything that was there at
        the claim has been tried, or after a while.
        """
        if self._trying and self._announced is not None and self._announced[1] not in resumes:
            self._acquitted.add(self._trying)
            self._announced, self._trying = None, ""
        if not self._careful:
            return []
        done = not self._waiting and self._announced is None and mark >= self._commands_end
        if not done and now_s < self._until_s:
            return []
        self._careful = False
        released, self._waiting = list(self._waiting.values()), OrderedDict()
        return released


def _was_blamed(run: RunState) -> bool:
    return run.blocked is not None and run.blocked.type == PROCESS_ENDED


assert ProcessEnded.__name__ == PROCESS_ENDED
