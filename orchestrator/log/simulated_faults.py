"""How often what goes wrong on the simulated log."""

from __future__ import annotations

import msgspec


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """Chances from 0 to 1, and how long delays are. :meth:`none` has none."""

    lost: float = 0.01
    """An append never lands; its outcome is UNKNOWN."""
    unseen: float = 0.01
    """An append lands; its outcome is UNKNOWN."""
    silent: float = 0.005
    """Neither this append nor later ones of its appender to this partition are ever acknowledged."""
    refused: float = 0.002
    """An append is refused."""
    delayed: float = 0.02
    """An append takes up to ``delay_ms``."""
    duplicated: float = 0.02
    """An append lands again up to ``delay_ms`` later; not for ordered appenders."""
    purged: float = 0.3
    """What is under way when its appender is abandoned or its process dies is cut off somewhere."""
    late: float = 0.3
    """What is under way then, and not cut off, takes up to ``delay_ms`` more."""
    hanging: float = 0.02
    """The outcome of a publish is UNKNOWN; it is decided by the next publisher's opening, or later."""
    denied: float = 0.02
    """A record for a user's topic is refused, and with it the publish."""
    stray: float = 0.5
    """An append to an ordered appender lands although a poll has reported an UNKNOWN of it before."""
    gaps: float = 0.02
    """Offsets are skipped before a record, as the markers of transactions do."""
    unanswered: float = 0.02
    """A bounded read of history is not answered in time."""
    partial: float = 0.2
    """A poll brings some of a partition's records, or none."""
    cleaned: float = 0.02
    """The cleaner visits a partition, per poll."""
    late_revocations: float = 0.1
    """A partition moves and its former owner hears of it up to ``delay_ms`` later."""
    missed_revocations: float = 0.05
    """A partition moves and its former owner does not hear of it until the cluster is healed."""
    rebalances: float = 0.002
    """A partition moves without a reason, per poll."""
    evictions: float = 0.001
    """A member loses all its partitions without a reason, per poll."""
    delay_ms: int = 20_000
    latency_ms: int = 4
    """An undisturbed append takes up to so long, and its acknowledgement as long again."""

    @classmethod
    def none(cls) -> Faults:
        """Nothing goes wrong; appends take their time."""
        return cls(**{name: 0.0 for name in cls.__struct_fields__ if not name.endswith("_ms")})  # type: ignore[arg-type]
