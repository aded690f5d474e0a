"""Compute the drawing of what happened over time: lanes of marks and bars on one axis. `trace.html` draws it. Pure.

The axis is divided into columns: a column for each moment, or several if things happened one after the other at the same
moment. A longer time between two columns takes more room, but only with its logarithm: seconds and days can both be read.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

from sandbox.domain.clock import parse

WIDTH: Final = 1050
LEFT: Final = 232
"""The width of the lanes' names."""
TOP: Final = 62
"""The height of the axis."""
LANE: Final = 32
SPACE: Final = 26
"""The least distance between two marks of a lane, so that each can be pointed at. Closer ones are drawn as one."""
_RIGHT: Final = 34
_WIDEST: Final = 56
"""The largest unit of the axis, so that a few marks are not drawn far apart."""
_MAX_LABELS: Final = 8
"""With more labels than these, columns get no room for them."""
_SHORTEST: Final = 14
"""The shortest bar that can be seen between its marks."""
_TIME_WIDTH: Final = 64
_DATE_WIDTH: Final = 76
_CHARACTER: Final = 6.6
_LAST: Final = 1_000_000
_WORST: Final[Sequence[str]] = ("bad", "warn", "good", "neutral")

Moment = tuple[str, int]
"""A time in RFC 3339, in UTC with milliseconds, and the order of what happened at that time."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, or is due, at a moment in a lane."""

    lane: str
    at: str
    text: str
    href: str
    tone: str = "neutral"
    """`good`, `bad`, `warn` or `neutral`."""
    order: int = 0
    is_due: bool = False
    milliseconds: float | None = None
    """How long it took."""
    label: str = ""
    """What is written below the mark, where there is room."""

    @property
    def moment(self) -> Moment:
        """When it happened."""
        return self.at, self.order


@dataclass(frozen=True, slots=True)
class Bar:
    """A state that lasts from a moment until another, or until now. It may also lie ahead: from now until its start."""

    lane: str
    start: Moment
    end: Moment | None
    tone: str = "neutral"
    label: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """A row of the drawing. `summary` is its present state. `noun` names its marks, in the plural."""

    key: str
    name: str
    noun: str
    summary: str = ""
    tone: str = "neutral"
    href: str = ""
    title: str = ""
    has_labels: bool = False


@dataclass(frozen=True, slots=True)
class DrawnMark:
    """A mark, or several that are too close to each other to be drawn alone."""

    x: float
    y: int
    text: str
    href: str
    tone: str
    is_due: bool
    count: int
    length: float
    """The length of the line that stands for how long it took; 0 if nothing is known."""
    label: str = ""


@dataclass(frozen=True, slots=True)
class DrawnBar:
    """A bar of a lane."""

    x: float
    y: int
    width: float
    height: int
    tone: str
    label: str


@dataclass(frozen=True, slots=True)
class DrawnLane:
    """A lane at its height."""

    lane: Lane
    y: int
    height: int


@dataclass(frozen=True, slots=True)
class TimeLabel:
    """A label of the axis. `date` is `now` for the present time, and empty if the date before it is the same."""

    x: float
    date: str
    time: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Time that passed between two labels of the axis, as text."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class Trace:
    """A drawing. `length` is how much of its width is used."""

    lanes: Sequence[DrawnLane]
    marks: Sequence[DrawnMark]
    bars: Sequence[DrawnBar]
    times: Sequence[TimeLabel]
    gaps: Sequence[Gap]
    now: float
    length: float
    height: int


def draw(lanes: Sequence[Lane], marks: Iterable[Mark], bars: Sequence[Bar], now: str) -> Trace:
    """Return the drawing of marks and bars, whose lanes are among `lanes`, at the time `now`."""
    spread = [found for lane in lanes for found in _spread([mark for mark in marks if mark.lane == lane.key])]
    current = _now(spread, now)
    moments = sorted(
        {current, *(mark.moment for mark in spread), *(end for bar in bars for end in (bar.start, bar.end) if end is not None)}
    )
    places = _places(moments, spread, current)
    drawn_lanes, y = [], TOP
    for lane in lanes:
        height = LANE + (14 if lane.has_labels else 0)
        drawn_lanes.append(DrawnLane(lane, y, height))
        y += height
    middles = {found.lane.key: found.y + LANE // 2 for found in drawn_lanes}
    drawn = []
    for lane in lanes:
        drawn += _lane(lane, middles[lane.key], [mark for mark in spread if mark.lane == lane.key], places)
    labelled = _labelled(moments, places, current)
    drawn_bars = [_bar(bar, middles[bar.lane], places, current) for bar in bars]
    return Trace(
        lanes=drawn_lanes,
        marks=drawn,
        bars=[bar for bar in drawn_bars if bar.width >= _SHORTEST],
        times=_times(labelled, places, current),
        gaps=_gaps(labelled, places),
        now=places[current],
        length=places[moments[-1]] + _RIGHT,
        height=y + 6,
    )


def in_words(seconds: float) -> str:
    """Return a duration with at most two units: 45 s, 2 min 5 s, 3 h, 2 d 4 h."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    rest, parts = max(1, round(seconds)), []
    for name, size in units:
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {name}")
        elif parts:
            break
    return " ".join(parts[:2])


def seconds_between(before: str, after: str) -> float:
    """Return the time between two times as the pages show them, without their milliseconds, so that a reader gets the same."""
    return (parse(f"{after[:19]}Z") - parse(f"{before[:19]}Z")).total_seconds()


def with_wait(item: Mapping[str, Any], now: str) -> dict[str, Any]:
    """Return something that is due with the time until then as `in_words`, which is empty if it is overdue."""
    is_ahead = parse(item["due_at"]) > parse(now)
    return {**item, "in_words": in_words(seconds_between(now, item["due_at"])) if is_ahead else ""}


def _spread(marks: Sequence[Mark]) -> list[Mark]:
    """Return a lane's marks in order, those of the same moment one after the other."""
    found: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: (mark.is_due, mark.moment)):
        if found and found[-1].moment >= mark.moment and found[-1].at == mark.at:
            mark = replace(mark, order=found[-1].order + 1)
        found.append(mark)
    return found


def _now(marks: Sequence[Mark], now: str) -> Moment:
    """Return the moment of now: after everything that has happened, before everything that is due."""
    latest = max((mark.at for mark in marks if not mark.is_due), default=now)
    return max(now, latest), _LAST


def _places(moments: Sequence[Moment], marks: Sequence[Mark], now: Moment) -> dict[Moment, float]:
    """Return the x coordinate of each moment."""
    labels = {mark.moment: (len(mark.label) * _CHARACTER + SPACE / 2) / SPACE for mark in marks if mark.label}
    if len(labels) > _MAX_LABELS:
        labels = {}
    weights = [max(_weight(before, after), labels.get(before, 0.0)) for before, after in pairwise(moments)]
    # The time of what is due next has room beside that of now, however crowded the rest is.
    after_now = _TIME_WIDTH if moments[-1] != now else 0
    unit = min(_WIDEST, (WIDTH - LEFT - 2 * _RIGHT - after_now) / max(sum(weights), 1e-9))
    places, x = {moments[0]: float(LEFT + _RIGHT)}, float(LEFT + _RIGHT)
    for (before, moment), weight in zip(pairwise(moments), weights, strict=True):
        x += weight * unit + (after_now if before == now else 0)
        places[moment] = round(x, 1)
    return places


def _weight(before: Moment, after: Moment) -> float:
    return 1.0 + 0.45 * math.log10(1 + _seconds(before[0], after[0]))


def _seconds(before: str, after: str) -> float:
    return 0.0 if before == after else (parse(after) - parse(before)).total_seconds()


def _lane(lane: Lane, y: int, marks: Sequence[Mark], places: dict[Moment, float]) -> list[DrawnMark]:
    """Return the marks of a lane. Marks that are too close to each other become one."""
    groups: list[list[Mark]] = []
    for mark in marks:
        is_near = groups and places[mark.moment] - places[groups[-1][0].moment] < SPACE - 0.5
        if is_near and groups[-1][0].is_due == mark.is_due:
            groups[-1].append(mark)
        else:
            groups.append([mark])
    found = [_group(lane, y, group, places[group[0].moment]) for group in groups]
    return _with_room(found)


def _group(lane: Lane, y: int, marks: Sequence[Mark], x: float) -> DrawnMark:
    first, last = marks[0], marks[-1]
    length = max((_length(mark.milliseconds) for mark in marks), default=0.0)
    if len(marks) == 1:
        return DrawnMark(x, y, first.text, first.href, first.tone, first.is_due, 1, length, first.label)
    tones = [mark.tone for mark in marks]
    tone = next(tone for tone in _WORST if tone in tones)
    bad = tones.count("bad")
    text = f"{len(marks)} {lane.noun}{f', {bad} of them failed' if bad else ''}. Last: {last.text}"
    return DrawnMark(x, y, text, last.href, tone, first.is_due, len(marks), length, last.label)


def _length(milliseconds: float | None) -> float:
    """Return the length of a duration's line: 4 for a millisecond, and 4 more for each ten times as long."""
    return 0.0 if milliseconds is None else round(min(4 + 4 * math.log10(max(milliseconds, 1)), SPACE - 4), 1)


def _with_room(marks: Sequence[DrawnMark]) -> list[DrawnMark]:
    """Return marks without the labels that would cover the label after them. The last label always stays."""
    found: list[DrawnMark] = []
    limit = float("inf")
    for mark in reversed(marks):
        if mark.label and mark.x - 8 + len(mark.label) * _CHARACTER > limit:
            mark = replace(mark, label="")
        limit = mark.x - 14 if mark.label else limit
        found.append(mark)
    return found[::-1]


def _bar(bar: Bar, y: int, places: dict[Moment, float], now: Moment) -> DrawnBar:
    x, end = sorted((places[bar.start], places[bar.end or now]))
    width = round(end - x, 1)
    fits = len(bar.label) * _CHARACTER + 2 * SPACE <= width
    return DrawnBar(x, y, width, 16 if bar.label else 8, bar.tone, bar.label if fits else "")


def _labelled(moments: Sequence[Moment], places: dict[Moment, float], now: Moment) -> list[Moment]:
    """Return the moments whose time is written, as many as have room. Now is one, and the last unless now is beside it."""
    firsts = {moment[0]: moment for moment in reversed(moments) if moment != now}
    kept = [now, *(moments[-1:] if places[moments[-1]] - places[now] >= _TIME_WIDTH - 1 else [])]
    found: list[Moment] = []
    for moment in sorted({*firsts.values(), now}):
        room = _DATE_WIDTH if _has_new_date(moment, found, now) else _TIME_WIDTH
        neighbours = [*found[-1:], *(one for one in kept if one > moment)]
        is_said = bool(found) and found[-1][0][:19] == moment[0][:19]  # two labels must differ, not only by milliseconds
        has_room = all(abs(places[one] - places[moment]) >= (_TIME_WIDTH if one == now else room) for one in neighbours)
        if moment in kept or (has_room and not is_said):
            found.append(moment)
    return found


def _has_new_date(moment: Moment, before: Sequence[Moment], now: Moment) -> bool:
    """Return whether a label needs its date. Now has none, so it does not say the date of those after it."""
    dates = [one[0][:10] for one in before if one != now]
    return not dates or dates[-1] != moment[0][:10]


def _times(labelled: Sequence[Moment], places: dict[Moment, float], now: Moment) -> list[TimeLabel]:
    found = []
    for number, moment in enumerate(labelled):
        date = moment[0][:10] if _has_new_date(moment, labelled[:number], now) else ""
        found.append(TimeLabel(places[moment], "now" if moment == now else date, moment[0][11:19]))
    return found


def _gaps(labelled: Sequence[Moment], places: dict[Moment, float]) -> list[Gap]:
    """Return how much time lies between two labels, where there is room for it."""
    found = []
    for before, after in pairwise(labelled):
        seconds = seconds_between(before[0], after[0])
        start, end = places[before], places[after]
        text = in_words(seconds) if seconds else ""
        if text and end - start >= len(text) * _CHARACTER + 6:
            found.append(Gap(round((start + end) / 2, 1), text))
    return found
