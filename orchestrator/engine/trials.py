"""Whose code ends the process: what a partition's claims and positions say of that.

An owner that consumed nothing since its claim has perhaps died of what came first. From the second one in a
row on, code is entered one run at a time, each after a position that says which (``trying``) was read back.
If an owner's last word is such a position, it died *in the trial* of that run. Claims, positions and turns
are in history, so all of this is a fold of it, like everything else.
"""

from __future__ import annotations

import msgspec

from orchestrator.protocol.events import Event, WorkflowBlocked
from orchestrator.protocol.records import Activation, Claim, Position, Turn

PROCESS_ENDED = "ProcessEnded"
"""The type of the failure that such a run is blocked with."""

MAX_DEATHS = 100
"""Remembered at most; there is one per claim, and they are forgotten when all is calm."""


class Trials(msgspec.Struct, frozen=True, array_like=True):
    """The fold. ``owners`` counts those in a row that consumed nothing, the present one included.

    ``mark`` is the position of commands at the last claim, ``trying`` the run that the last record names,
    ``interrupted`` whether the owner before the present one ended in a trial, ``deaths`` are (run id, owner)
    of such ends.
    """

    owner: str = ""
    owners: int = 0
    mark: int = 0
    trying: str = ""
    interrupted: bool = False
    deaths: tuple[tuple[str, str], ...] = ()

    @property
    def suspicious(self) -> bool:
        """Whether the present owner must not enter code but in trials."""
        return self.owners > 1 or self.interrupted

    def after_claim(self, claim: Claim, mark: int) -> Trials:
        """After a valid claim, with the position of commands there. An owner may claim anew, and lives."""
        moved = mark != self.mark
        if claim.owner == self.owner:
            return msgspec.structs.replace(
                self,
                owners=1 if moved else self.owners,
                mark=mark,
                trying="",
                interrupted=self.interrupted and not moved,
            )
        deaths = self.deaths
        if self.trying:
            deaths = (*deaths, (self.trying, self.owner))[-MAX_DEATHS:]
        elif moved:
            deaths = ()
        return Trials(
            owner=claim.owner,
            owners=1 if moved else self.owners + 1,
            mark=mark,
            interrupted=bool(self.trying),
            deaths=deaths,
        )

    def after(self, record: Turn | Position) -> Trials:
        """After a record that counts. A run whose code was entered, and left, is acquitted; one that was
        blocked for its deaths has paid for them: it is blocked again only after another one.
        """
        if isinstance(record, Position):
            return (
                self if record.trying == self.trying else msgspec.structs.replace(self, trying=record.trying)
            )
        deaths = self.deaths
        if deaths and (record.activation is Activation.DONE or any(map(_blocks, record.events))):
            deaths = tuple(death for death in deaths if death[0] != record.run_id)
        if deaths == self.deaths and not self.trying:
            return self
        return msgspec.structs.replace(self, trying="", deaths=deaths)


def _blocks(event: Event) -> bool:
    return isinstance(event, WorkflowBlocked) and event.reason == PROCESS_ENDED
