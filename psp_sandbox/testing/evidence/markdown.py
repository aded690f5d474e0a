"""Write an exploration as Markdown, for a pull request."""

from collections.abc import Iterator
from typing import Final

from psp_sandbox.testing.evidence.exploration_page import MAX_FINDINGS, Page, page_of
from psp_sandbox.testing.evidence.text import clean
from psp_sandbox.testing.explore.results import Exploration

_CELL: Final = 300
"""The most characters of a cell of the table."""


def markdown(found: Exploration) -> str:
    """Return the headline, the causes with their cures, and the lines that repeat the findings."""
    return "\n".join(_lines(page_of(found))) + "\n"


def _lines(page: Page) -> Iterator[str]:
    yield f"### {_text(page.headline)}"
    if page.missing:
        yield f"\nThe time ran out: {page.missing:,} planned ways were not tried."
    if page.causes:
        yield "\n| likely cause | findings | money | cure |\n|---|---:|---:|---|"
    for cause in page.causes:
        yield f"| {cause.name} | {cause.count} | {_text(cause.money)} | {_text(cause.cure)} |"
    if page.findings:
        yield "\n| finding | ends | repeat |\n|---|---|---|"
    for one in page.findings:
        yield f"| {_text(one.where)} | {one.point.verdict}: {_text(one.money)} | {_code(one.point.repeat)} |"
    if page.findings_total > MAX_FINDINGS:
        yield f"\n{page.findings_total - MAX_FINDINGS:,} more findings are in the JSON file of this run."


def _text(text: str) -> str:
    """Return a text that cannot end its cell, and is neither HTML nor markup."""
    one_line = " ".join(clean(text, _CELL).split())
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#!&" else c for c in one_line)


def _code(text: str) -> str:
    return f"`{' '.join(clean(text, _CELL).split()).replace('`', chr(39)).replace('|', chr(92) + '|')}`"
