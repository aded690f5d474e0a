"""An exploration as text for the terminal."""

import textwrap
from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from psp_sandbox.testing.counted import counted
from psp_sandbox.testing.explore.causes import why
from psp_sandbox.testing.explore.results import Exploration, PointResult, Verdict

_WIDTH: Final = 118
_TIMELINE_ROWS: Final = 14
_WORDS: Final = {
    Verdict.RIGHT: "right",
    Verdict.REFUSED: "noticed by the test (it failed, the money is right)",
    Verdict.WRONG: "wrong",
    Verdict.UNSETTLED: "unsettled",
    Verdict.NOT_REACHED: "not reached",
}


def as_text(exploration: Exploration) -> list[str]:
    """Return the lines of the report: findings first, then what was left out, then the counts."""
    shown = [point for point in exploration.points if point.verdict in (Verdict.WRONG, Verdict.UNSETTLED)]
    lines = [line for point in shown for line in (*_finding(point), "")]
    lines += [f"Left out: {one.test}: {one.reason}" for one in exploration.left_out]
    lines += [f"Not tried: {one.kind}: {one.reason}" for one in exploration.not_tried]
    if not exploration.has_books:
        lines.append(
            "No books: only the provider's side was judged. The fixture psp_books shows what your application believes."
        )
    return [*lines, *_totals(exploration)]


def _finding(point: PointResult) -> Iterator[str]:
    yield f"{point.verdict.upper()}  {point.test}"
    yield f"  {point.name}"
    if point.reason:
        yield from _paragraph(point.reason)
    for one in point.differences:
        yield f"    {one.reference}: overpaid {one.overpaid}"
    if point.cause is not None:
        yield from _paragraph(f"Likely cause: {point.cause.replace('_', ' ')}. {why(point.cause)}")
    if point.cure:
        yield from _paragraph(f"Fix: {point.cure}")
    if len(point.timeline) > _TIMELINE_ROWS:
        yield f"    … {len(point.timeline) - _TIMELINE_ROWS} earlier rows are in the results"
    for row in point.timeline[-_TIMELINE_ROWS:]:
        yield f"    {row.at[11:19]}  {row.side:<11}  {row.text}"
    yield f"  Repeat it: {point.repeat}"
    if point.bundle:
        yield f"  State at its end: {point.bundle}"


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)


def _totals(exploration: Exploration) -> Iterator[str]:
    counts = exploration.counts
    parts = ", ".join(f"{counts[verdict]} {word}" for verdict, word in _WORDS.items() if counts[verdict])
    yield f"{counted(len(exploration.points), 'way')} tried: {parts or 'nothing to try'}."
    overpaid = sum((point.overpaid for point in exploration.findings), Decimal(0))
    if overpaid:
        yield f"{exploration.currency} {overpaid:,.2f} paid that the books do not know, had this been production."
    if not exploration.is_complete:
        yield f"{exploration.planned - len(exploration.points):,} are left. Continue with the option to resume."
