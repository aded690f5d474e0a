"""Take a page apart: its regions, which are replaced while it is open, and what they depend on. Pure."""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final

_TAG: Final = re.compile(r'<(\w+)((?:\s+[\w-]+(?:="[^"]*")?)*)\s*>')
_ATTRIBUTE: Final = re.compile(r'([\w-]+)(?:="([^"]*)")?')
ANYTHING: Final = "*"
"""Stands for all kinds of changes: messages were missed, or a page has just been opened."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a page: its HTML, and what it is compared by: the attribute `data-same` if it has one, else its HTML."""

    html: str
    same: str


@dataclass(frozen=True, slots=True)
class PageParts:
    """A page's outermost regions by id, the kinds of changes that it shows, and the ids that it is about (empty: about all)."""

    regions: Mapping[str, Region]
    kinds: tuple[str, ...]
    about: frozenset[str]

    def is_affected_by(self, kinds: Set[str], ids: Set[str]) -> bool:
        """Return whether changes of these kinds, to payouts or events with these ids, may change the page. No ids: to any."""
        if ANYTHING in kinds:
            return True
        if self.about and ids and self.about.isdisjoint(ids):
            return False
        return any(
            kind == wanted or (wanted.endswith(".") and kind.startswith(wanted)) for wanted in self.kinds for kind in kinds
        )

    def changed_since(self, before: "PageParts | None") -> dict[str, str]:
        """Return the HTML of the regions that differ from an earlier version of the page, by id."""
        known = {} if before is None else {name: region.same for name, region in before.regions.items()}
        return {name: region.html for name, region in self.regions.items() if known.get(name) != region.same}


def parts_of(html: str) -> PageParts:
    """Return the parts of a page. Texts in it are escaped, so they cannot be taken for tags or attributes."""
    about: list[str] = []
    kinds: list[str] = []
    regions: dict[str, Region] = {}
    end = 0
    for opening, attributes in _tags(html):
        about += attributes.get("data-about", "").split()
        kinds += attributes.get("data-refresh", "").split()
        if "data-region" in attributes and opening.start() >= end:
            end = _end_of(html, opening)
            text = html[opening.start() : end]
            regions[attributes["id"]] = Region(text, attributes.get("data-same", text))
    return PageParts(regions, tuple(kinds), frozenset(about))


def _tags(html: str) -> Iterator[tuple[re.Match[str], dict[str, str]]]:
    """Yield the tags with a `data-` attribute that matters here. Most tags have none, so look for these attributes first."""
    for found in re.finditer(r" data-(?:region|about|refresh)\b", html):
        opening = _TAG.match(html, html.rfind("<", 0, found.start()))
        if opening is not None and opening.end() > found.start():
            yield opening, dict(_ATTRIBUTE.findall(opening[2]))


def _end_of(html: str, opening: re.Match[str]) -> int:
    """Return where the element ends that a tag opens: all elements with its name inside of it are closed before."""
    depth = 0
    for tag in re.compile(rf"<(/?){opening[1]}\b[^>]*>").finditer(html, opening.start()):
        depth += -1 if tag[1] else 1
        if depth == 0:
            return tag.end()
    return len(html)
