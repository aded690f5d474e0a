"""Prepare an exploration for its page: what comes first, what is counted, what is left out."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from psp_sandbox.testing.counted import counted
from psp_sandbox.testing.evidence.money import Money, described, money_of, shown
from psp_sandbox.testing.evidence.words import CAUSES, KINDS, PLACES, VERDICTS
from psp_sandbox.testing.explore.causes import why
from psp_sandbox.testing.explore.results import At, Exploration, Kind, PointResult, TimelineRow, Verdict

MAX_FINDINGS: Final = 100
"""The most findings that are shown with all their details."""
MAX_ROWS: Final = 300
"""The most rows of a table or list."""
BAR_WIDTH: Final = 200
"""The width of the longest bar, in pixels."""
CELL: Final = 18
"""The width and height of a cell of the plot, in pixels."""
FINDINGS: Final = (Verdict.WRONG, Verdict.UNSETTLED)
"""The verdicts that fail a run."""
_SHORT_SECONDS: Final = 10
_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a bar, in pixels."""

    verdict: Verdict
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class KindRow:
    """A kind of point: how often it was tried, and how it ended."""

    name: str
    meaning: str
    bar: Sequence[Segment]
    summary: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A test and a kind: how the points ended. The worst verdict gives the color."""

    x: int
    verdict: Verdict
    label: str
    title: str


@dataclass(frozen=True, slots=True)
class TestRow:
    """A test in the plot."""

    test: str
    summary: str
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Moment:
    """A row of a timeline."""

    after: str
    """The time since the first row, such as `+2 h 5 min`."""
    at: str
    is_application: bool
    text: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A point that ended wrong or unsettled."""

    number: int
    point: PointResult
    money: str
    what: str
    """What happened, in one sentence."""
    where: str
    cause: str
    why: str
    """What the cause means."""
    timeline: Sequence[Moment]


@dataclass(frozen=True, slots=True)
class CauseRow:
    """A cause, and all findings that have it."""

    name: str
    count: int
    money: str
    cure: str
    first: int
    """The number of its first finding."""


@dataclass(frozen=True, slots=True)
class Page:
    """Everything that the template shows."""

    found: Exploration
    headline: str
    ways: str
    """The headline without the money."""
    money: str
    most: str
    """The most money of a single finding; "" if there is only one with money, which is then all of it."""
    is_ok: bool
    causes: Sequence[CauseRow]
    findings: Sequence[Finding]
    findings_total: int
    kinds: Sequence[tuple[str, Sequence[KindRow]]]
    columns: Sequence[tuple[int, str]]
    """The plot's kinds: the x coordinate and the name."""
    plot_width: int
    tests: Sequence[TestRow]
    tests_total: int
    verdicts: Sequence[tuple[Verdict, str, str, int]]
    """Verdict, name, meaning and number of points."""
    refused: Sequence[PointResult]
    not_reached: Sequence[PointResult]
    not_tried: Sequence[tuple[str, str]]
    missing: int
    """How many points there was no time for."""
    is_pairs: bool
    """Whether pairs of points were tried."""


def page_of(found: Exploration) -> Page:
    """Return what the page shows of an exploration."""
    bad = sorted(
        (point for point in found.points if point.verdict in FINDINGS),
        key=lambda point: (point.verdict is not Verdict.WRONG, -money_of(point.differences).total),
    )
    findings = [_finding(number, point, found.currency) for number, point in enumerate(bad, start=1)]
    columns = {kind: CELL * number for number, kind in enumerate(_kinds_of(found.points))}
    tests = _tests(found.points, columns)
    return Page(
        found=found,
        headline=headline(found),
        ways=_ways(found),
        money=described(_total(found.findings), found.currency),
        most=_most(found),
        is_ok=found.ok,
        causes=_causes(findings, found.currency),
        findings=findings[:MAX_FINDINGS],
        findings_total=len(findings),
        kinds=_kinds(found.points),
        columns=[(x, KINDS[kind].name) for kind, x in columns.items()],
        plot_width=CELL * len(columns),
        tests=tests[:MAX_ROWS],
        tests_total=len(tests),
        verdicts=[(one, words.name, words.meaning, found.counts[one]) for one, words in VERDICTS.items()],
        refused=[point for point in found.points if point.verdict is Verdict.REFUSED],
        not_reached=[point for point in found.points if point.verdict is Verdict.NOT_REACHED],
        not_tried=[(KINDS[one.kind].name, one.reason) for one in found.not_tried],
        missing=max(found.planned - len(found.points), 0),
        is_pairs=any(point.with_points for point in found.points),
    )


def headline(found: Exploration) -> str:
    """Return the result in one or two sentences, such as `1,204 ways tried: 1,199 right, 5 wrong. PKR 4,500.00 paid ….`"""
    money = described(_total(found.findings), found.currency)
    return f"{_ways(found)}{f' {money}.' if money else ''}"


def _ways(found: Exploration) -> str:
    order = (Verdict.RIGHT, Verdict.REFUSED, Verdict.WRONG, Verdict.UNSETTLED, Verdict.NOT_REACHED)
    always = (Verdict.RIGHT, Verdict.WRONG)
    counts = [f"{found.counts[one]:,} {VERDICTS[one].name}" for one in order if found.counts[one] or one in always]
    return f"{counted(len(found.points), 'way')} tried: {', '.join(counts)}."


def _most(found: Exploration) -> str:
    sums = [money.total for point in found.findings if (money := money_of(point.differences)).total]
    return shown(max(sums), found.currency) if len(sums) > 1 else ""


def _total(points: Iterable[PointResult]) -> Money:
    return sum((money_of(point.differences) for point in points), Money())


def _finding(number: int, point: PointResult, currency: str) -> Finding:
    return Finding(
        number,
        point,
        money=described(money_of(point.differences), currency) or VERDICTS[point.verdict].name,
        what=KINDS[point.kind].meaning,
        where=f"{KINDS[point.kind].name}: {point.place}",
        cause=CAUSES[point.cause] if point.cause else "",
        why=why(point.cause) if point.cause else "",
        timeline=_timeline(point.timeline),
    )


def _causes(findings: Sequence[Finding], currency: str) -> list[CauseRow]:
    """Return the causes, those of the most money first. Findings without one have a row of their own, the last."""
    groups: defaultdict[str, list[Finding]] = defaultdict(list)
    for one in findings:
        groups[one.cause].append(one)
    by_money = sorted(groups.items(), key=lambda item: (item[0] == "", -_total(one.point for one in item[1]).total))
    return [
        CauseRow(
            name=name or "Not known",
            count=len(group),
            money=_amount(_total(one.point for one in group), currency),
            cure=next((one.point.cure for one in group if one.point.cure), ""),
            first=group[0].number,
        )
        for name, group in by_money
    ]


def _amount(money: Money, currency: str) -> str:
    return shown(money.total, currency) if money.total else ""


def _timeline(rows: Sequence[TimelineRow]) -> list[Moment]:
    start = _time(rows[0].at) if rows else None
    return [
        Moment(
            after=_after(_time(row.at), start),
            at=row.at,
            is_application=row.side == "application",
            text=row.text,
        )
        for row in rows[:MAX_ROWS]
    ]


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _after(at: datetime | None, start: datetime | None) -> str:
    if at is None or start is None:
        return ""
    seconds = (at - start).total_seconds()
    if seconds < _SHORT_SECONDS:
        return f"+{seconds:.1f} s"
    days, rest = divmod(round(seconds), _DAY)
    hours, rest = divmod(rest, _HOUR)
    minutes, rest = divmod(rest, _MINUTE)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    return "+" + " ".join([f"{number} {unit}" for number, unit in parts if number][:2])


def _kinds_of(points: Iterable[PointResult]) -> list[Kind]:
    tried = {point.kind for point in points}
    return [kind for kind in KINDS if kind in tried]


def _kinds(points: Sequence[PointResult]) -> list[tuple[str, Sequence[KindRow]]]:
    """Return the rows of all kinds that were tried, by where they happen."""
    counts: defaultdict[tuple[At, Kind], Counter[Verdict]] = defaultdict(Counter)
    for point in points:
        counts[point.at, point.kind][point.verdict] += 1
    largest = max((some.total() for some in counts.values()), default=1)
    return [
        (place, rows)
        for at, place in PLACES.items()
        if (rows := [_kind_row(kind, counts[at, kind], largest) for kind in KINDS if (at, kind) in counts])
    ]


def _kind_row(kind: Kind, counts: Counter[Verdict], largest: int) -> KindRow:
    return KindRow(KINDS[kind].name, KINDS[kind].meaning, _bar(counts, largest), _summary(counts))


def _bar(counts: Mapping[Verdict, int], largest: int) -> list[Segment]:
    """Return the parts of a bar, worst first. A part is at least 3 pixels wide, so that one wrong point of many is seen."""
    segments, x = [], 0.0
    for verdict in VERDICTS:
        if counts[verdict]:
            width = max(BAR_WIDTH * counts[verdict] / largest, 3.0)
            segments.append(Segment(verdict, round(x, 1), round(width, 1)))
            x += width
    scale = min(1.0, BAR_WIDTH / x) if x else 1.0
    return [Segment(one.verdict, round(one.x * scale, 1), round(one.width * scale, 1)) for one in segments]


def _summary(counts: Mapping[Verdict, int]) -> str:
    return ", ".join(f"{counts[verdict]:,} {words.name}" for verdict, words in VERDICTS.items() if counts[verdict])


def _tests(points: Iterable[PointResult], columns: Mapping[Kind, int]) -> list[TestRow]:
    """Return a row for each test; those with findings first."""
    counts: dict[str, defaultdict[Kind, Counter[Verdict]]] = {}
    for point in points:
        counts.setdefault(point.test, defaultdict(Counter))[point.kind][point.verdict] += 1
    rows = [(test, by_kind, sum(by_kind.values(), Counter[Verdict]())) for test, by_kind in counts.items()]
    rows.sort(key=lambda row: -(row[2][Verdict.WRONG] * 2 + row[2][Verdict.UNSETTLED]))
    return [
        TestRow(
            test,
            _summary_by_kind(total, by_kind),
            [_cell(kind, by_kind[kind], columns[kind]) for kind in columns if kind in by_kind],
        )
        for test, by_kind, total in rows
    ]


def _summary_by_kind(total: Mapping[Verdict, int], by_kind: Mapping[Kind, Mapping[Verdict, int]]) -> str:
    """Return how a test's points ended, and at which kinds for those that are findings."""
    parts = []
    for verdict, words in VERDICTS.items():
        if total[verdict]:
            at = ", ".join(KINDS[kind].name.lower() for kind in KINDS if kind in by_kind and by_kind[kind][verdict])
            parts.append(f"{total[verdict]:,} {words.name}{f' ({at})' if verdict in FINDINGS else ''}")
    return ", ".join(parts)


def _cell(kind: Kind, counts: Counter[Verdict], x: int) -> Cell:
    worst = next(verdict for verdict in VERDICTS if counts[verdict])
    return Cell(x, worst, str(min(counts[worst], 99)), f"{KINDS[kind].name}: {_summary(counts)}")
