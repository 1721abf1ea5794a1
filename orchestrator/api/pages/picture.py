"""A timeline as it is drawn: a bounded number of rows, places in per cent of the width. No I/O.

Idle times that would dwarf everything else are cut to a fixed width. Rows beyond ``MAX_ROWS`` are folded:
what is open, what went wrong and what took longest keeps a row of its own, the rest is one row per name.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import nlargest
from typing import NamedTuple

from orchestrator.api.pages.timeline import BAD, Attempt, Bar, Gap, Kind, Outcome, Timeline

MAX_ROWS = 300
"""Of one drawing: some screens full. What more there is, is folded."""

MAX_MARKED = 130
"""Bars that are open or went wrong, and keep a row of their own where there are too many."""

MAX_LONGEST = 20
"""Of the others, those that took longest, which keep one too: a thousand that are alike are a screen full."""

MAX_GROUPS = 100
"""Rows of folded bars; the names beyond them share one row."""

MAX_MARK_ROWS = 40
"""Rows of marks; the names beyond them share one row per kind."""

WIDTH = 100.0
"""Places are per cent of the drawing's width, so that it fits every window without a script."""

CUT_WIDTH = 5.0
"""Of an idle time that is cut: room for what it is labelled with."""

MAX_CUTS = 8
"""So that at least half of the width is left for what happened."""

CUT_SHARE = 0.2
"""An idle time is cut if it is longer than this share of what is drawn otherwise."""

MIN_CUT_MS = 1_000
"""An idle time that is shorter than a second is not worth a cut."""

MIN_WIDTH = 0.3
"""Of a bar: some pixels, so that the shortest is seen."""

MIN_APART = 0.5
"""Marks, and attempts of a folded row, that are closer than this are drawn as one."""


class Cut(NamedTuple):
    """An idle time that is drawn with a fixed width."""

    x: float
    width: float
    length_ms: int


class Scale:
    """Where times are on the drawing: later ones never to the left of earlier ones.

    Args:
        start_ms: the left edge.
        end_ms: the right edge.
        gaps: idle times in between, the longest first; they do not overlap.
    """

    def __init__(self, start_ms: int, end_ms: int, gaps: Iterable[Gap]) -> None:
        whole = max(1, end_ms - start_ms)
        cut: list[Gap] = []
        drawn = whole
        for gap in gaps:
            if len(cut) == MAX_CUTS or gap.length_ms <= max(MIN_CUT_MS, CUT_SHARE * drawn):
                break
            cut.append(gap)
            drawn -= gap.length_ms
        cut.sort()
        cut_width = CUT_WIDTH if drawn else WIDTH / len(cut)
        per_ms = (WIDTH - cut_width * len(cut)) / drawn if drawn else 0.0
        self._times, self._places, self._per_ms = [start_ms], [0.0], [per_ms]
        self.cuts: list[Cut] = []
        for gap in cut:
            x = self._places[-1] + (gap.start_ms - self._times[-1]) * self._per_ms[-1]
            self.cuts.append(Cut(x, cut_width, gap.length_ms))
            self._times += (gap.start_ms, gap.end_ms)
            self._places += (x, x + cut_width)
            self._per_ms += (cut_width / gap.length_ms, per_ms)

    def x(self, time_ms: int) -> float:
        """The place of a time, within the drawing."""
        piece = max(0, bisect_right(self._times, time_ms) - 1)
        place = self._places[piece] + (time_ms - self._times[piece]) * self._per_ms[piece]
        return min(max(place, 0.0), WIDTH)


class Part(NamedTuple):
    """A piece of a row: an attempt, or a mark. ``many`` such things are drawn as one."""

    x: float
    width: float
    outcome: Outcome
    number: int = 0
    detail: str = ""
    many: int = 1

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.x + self.width


class Row(NamedTuple):
    """A row of the drawing, and of the table that says the same in words.

    ``many`` bars are folded into it, with ``outcomes``; ``parts`` are attempts, or marks of a row without a
    width. ``end_ms`` None: it is not over. ``due_ms`` is when an open timer fires.
    """

    kind: Kind
    name: str
    x: float
    width: float
    start_ms: int
    end_ms: int | None
    outcome: Outcome
    parts: tuple[Part, ...] = ()
    id: int = 0
    tries: int = 0
    many: int = 1
    outcomes: tuple[tuple[Outcome, int], ...] = ()
    due_ms: int = 0

    @property
    def names_left(self) -> bool:
        """Whether its name stands left of where it begins: there is no room to the right of it."""
        return self.x > WIDTH / 2


class Picture(NamedTuple):
    """A drawing: the run first, then what it did, in the order of beginnings."""

    rows: tuple[Row, ...]
    cuts: tuple[Cut, ...]
    start_ms: int
    end_ms: int


def draw(timeline: Timeline, now_ms: int) -> Picture:
    """The drawing of a timeline as it stands now."""
    end_ms = timeline.end_ms(now_ms)
    scale = Scale(timeline.start_ms, end_ms, timeline.gaps(now_ms))
    bars = [*timeline.activities.values(), *timeline.timers.values()]
    marks = _mark_rows(timeline, scale)
    room = MAX_ROWS - 1 - len(marks)
    fits = len(bars) <= room
    rows = [_row(bar, scale, end_ms) for bar in bars] if fits else _folded(bars, scale, end_ms)
    rows = sorted([*rows, *marks], key=lambda row: (row.start_ms, row.id))
    run = _row(timeline.run, scale, end_ms)
    return Picture((run, *rows), tuple(scale.cuts), timeline.start_ms, end_ms)


def _row(bar: Bar, scale: Scale, end_ms: int) -> Row:
    x, width = _span(scale, bar.start_ms, bar.end_ms, end_ms)
    return Row(
        bar.kind,
        bar.name,
        x,
        width,
        bar.start_ms,
        bar.end_ms,
        bar.outcome,
        parts=tuple(_part(attempt, scale, end_ms, x + width) for attempt in bar.attempts),
        id=bar.id,
        tries=bar.tries,
        due_ms=bar.due_ms,
    )


def _part(attempt: Attempt, scale: Scale, end_ms: int, right: float) -> Part:
    x, width = _span(scale, attempt.start_ms, attempt.end_ms, end_ms, right)
    return Part(x, width, attempt.outcome, attempt.number, attempt.detail)


def _span(
    scale: Scale, start_ms: int, end_ms: int | None, now_ms: int, limit: float = WIDTH
) -> tuple[float, float]:
    """Where something is, wide enough to be seen, and not to the right of ``limit``."""
    x, right = scale.x(start_ms), scale.x(end_ms if end_ms is not None else now_ms)
    width = max(right - x, MIN_WIDTH)
    return min(x, limit - width), width


def _folded(bars: Sequence[Bar], scale: Scale, end_ms: int) -> list[Row]:
    marked = [bar for bar in bars if bar.end_ms is None or bar.troubled]
    others = [bar for bar in bars if bar.end_ms is not None and not bar.troubled]
    single = nlargest(MAX_MARKED, marked, key=lambda bar: _interest(bar, end_ms))
    single += nlargest(MAX_LONGEST, others, key=lambda bar: _interest(bar, end_ms))
    shown = {id(bar) for bar in single}
    groups: dict[tuple[Kind, str], list[Bar]] = {}
    for bar in bars:
        if id(bar) not in shown:
            groups.setdefault((bar.kind, bar.name), []).append(bar)
    by_size = sorted(groups.items(), key=lambda item: -len(item[1]))
    rows = [_row(bar, scale, end_ms) for bar in single]
    rows += [_group(kind, name, found, scale, end_ms) for (kind, name), found in by_size[:MAX_GROUPS]]
    rest = [bar for _, found in by_size[MAX_GROUPS:] for bar in found]
    if rest:
        rows.append(_group(Kind.ACTIVITY, "others", rest, scale, end_ms))
    return rows


def _interest(bar: Bar, end_ms: int) -> tuple[bool, bool, int]:
    last_ms = bar.end_ms if bar.end_ms is not None else end_ms
    return bar.troubled, bar.end_ms is None, last_ms - bar.start_ms


def _group(kind: Kind, name: str, bars: Sequence[Bar], scale: Scale, end_ms: int) -> Row:
    """One row for many bars: from the first beginning to the last end."""
    if len(bars) == 1:
        return _row(bars[0], scale, end_ms)
    outcomes = Counter(bar.outcome for bar in bars)
    start_ms = min(bar.start_ms for bar in bars)
    last_ms = None if Outcome.OPEN in outcomes else max(bar.end_ms or 0 for bar in bars)
    x, width = _span(scale, start_ms, last_ms, end_ms)
    bad = next((outcome for outcome in outcomes if outcome in BAD), None)
    attempts = sorted(
        (_part(attempt, scale, end_ms, WIDTH) for bar in bars for attempt in bar.attempts),
        key=lambda part: part.x,
    )
    return Row(
        kind,
        name,
        x,
        width,
        start_ms,
        last_ms,
        bad or (Outcome.OPEN if last_ms is None else outcomes.most_common(1)[0][0]),
        parts=_joined(attempts),
        id=bars[0].id,
        tries=sum(bar.tries for bar in bars),
        many=len(bars),
        outcomes=tuple(outcomes.most_common()),
    )


def _joined(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Parts in order from left to right, those that touch or nearly do as one; the bad ones show."""
    found: list[Part] = []
    together: list[Part] = []
    limit = 0.0
    for part in parts:
        if together and part.x >= limit:
            found.append(_one(together))
            together, limit = [], 0.0
        together.append(part)
        limit = max(limit, part.x + part.width + MIN_APART)
    return (*found, _one(together)) if together else ()


def _one(parts: Sequence[Part]) -> Part:
    if len(parts) == 1:
        return parts[0]
    x = parts[0].x
    outcome = next((part.outcome for part in parts if part.outcome in BAD), parts[0].outcome)
    return Part(x, max(part.x + part.width for part in parts) - x, outcome, many=len(parts))


def _mark_rows(timeline: Timeline, scale: Scale) -> list[Row]:
    by_name = sorted(timeline.marks.items(), key=lambda item: -len(item[1]))
    rows = [_mark_row(kind, name, times, scale) for (kind, name), times in by_name[:MAX_MARK_ROWS]]
    rest: dict[Kind, list[int]] = {}
    for (kind, _), times in by_name[MAX_MARK_ROWS:]:
        rest.setdefault(kind, []).extend(times)
    return rows + [_mark_row(kind, "others", sorted(times), scale) for kind, times in rest.items()]


def _mark_row(kind: Kind, name: str, times: Sequence[int], scale: Scale) -> Row:
    marks = _joined(Part(scale.x(time_ms), 0.0, Outcome.DONE) for time_ms in times)
    x = marks[0].x
    return Row(kind, name, x, 0.0, times[0], times[-1], Outcome.DONE, parts=marks, many=len(times))
