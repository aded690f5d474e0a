"""Compare what two servers of one dialect answer, by shape: statuses, members, types, and values of enumerations.

Ids, times and texts differ between any two servers, so only their form counts. Pure.
"""

import re
from collections.abc import Callable, Generator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

_FORMS: Final = (
    (re.compile(r"[A-Z][A-Z_]+"), None),  # a value of an enumeration, which counts itself
    (re.compile(r"([a-z]+_)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "id"),
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"), "time"),
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9:.]+"), "local time"),
    (re.compile(r"-?[0-9]+"), "digits"),
    (re.compile(r"-?[0-9]+\.[0-9]+"), "decimal number"),
    (re.compile(r"[0-9a-f]{32}"), "32 hex digits"),
    (re.compile(r"[0-9A-Z]{35}"), "35 capital letters and digits"),
)
Shape = Mapping[str, frozenset[str]]
"""The place of a value, such as `data.payments[].id` → the forms of all values there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request to both servers."""

    name: str
    """What it asks, for people."""
    method: str
    path: str
    """What follows the base URL."""
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    has_wrong_key: bool = False
    varying: frozenset[str] = frozenset()
    """Members whose value depends on when it is asked, so that only their form counts."""


Scenario = Generator[Ask, Any, None]
"""Yields requests, and is sent the JSON of each answer, of which it takes the ids that it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How a dialect is compared with the provider's own test environment."""

    scenario: Callable[[str], Scenario]
    """Takes the account, as the provider calls the merchant."""
    account_of: Callable[[str], str]
    """Returns the account of a merchant."""
    test_hosts: frozenset[str]
    """The only hosts, beside those of this machine, that are ever called."""
    live_keys: tuple[str, ...]
    """The prefixes of keys that move real money."""

    def objection(self, base_url: str, key: str, own_hosts: Set[str]) -> str | None:
        """Return why a server must not be called with a key, or None. The text does not repeat the key.

        `own_hosts` are the names of this machine.
        """
        url = urlsplit(base_url)
        if url.hostname not in self.test_hosts | own_hosts:
            hosts = ", ".join(sorted(self.test_hosts))
            return f"{url.hostname} is not a test environment: only {hosts} and this machine are called."
        if url.scheme != "https" and url.hostname not in own_hosts:
            return "Use https, so that nobody on the way reads your key."
        if key.startswith(self.live_keys):
            return "This is a live key, which could move real money. Use one of the test environment."
        return None


class Difference(NamedTuple):
    """The first place at which two answers differ, and what each has there."""

    place: str
    ours: str
    theirs: str


def shape_of(value: Any, varying: frozenset[str] = frozenset()) -> Shape:
    """Return the shape of a JSON value. Of the items of an array, all shapes count, whatever their order and number."""
    found: dict[str, set[str]] = {}
    _add(found, "", value, varying)
    return {place: frozenset(forms) for place, forms in found.items()}


def first_difference(ours: Shape, theirs: Shape) -> Difference | None:
    """Return the first difference, or None. What an empty array would have in it is unknown, so it differs from nothing."""
    for place in [*ours, *(place for place in theirs if place not in ours)]:
        forms = ours.get(place), theirs.get(place)
        if forms[0] is not None and forms[1] is not None:
            if not forms[0] & forms[1]:
                return Difference(place, _said(forms[0]), _said(forms[1]))
        elif not (_is_inside_empty(place, ours) or _is_inside_empty(place, theirs)):
            return Difference(place, *("absent" if one is None else _said(one) for one in forms))
    return None


def _add(found: dict[str, set[str]], place: str, value: Any, varying: frozenset[str]) -> None:
    forms = found.setdefault(place, set())
    if isinstance(value, dict):
        forms.add("object")
        for name, item in value.items():
            _add(found, f"{place}.{name}".lstrip("."), item, varying)
    elif isinstance(value, list):
        forms.add("array")
        for item in value:
            _add(found, f"{place}[]", item, varying)
    else:
        form = _form_of(value)
        forms.add("text" if isinstance(value, str) and place.rpartition(".")[2] in varying else form)


def _form_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if not isinstance(value, str):
        return "number"
    return next((form or value for pattern, form in _FORMS if pattern.fullmatch(value)), "text" if value else "empty text")


def _is_inside_empty(place: str, shape: Shape) -> bool:
    """Return whether an array around this place has no items. An object that is null has been reported before."""
    parts = place.split("[]")
    arrays = ["[]".join(parts[:count]) for count in range(1, len(parts))]
    return any("array" in shape.get(array, ()) and f"{array}[]" not in shape for array in arrays)


def _said(forms: frozenset[str]) -> str:
    return " or ".join(sorted(forms))
