"""Convert a submitted form to an API call, and an API problem to messages beside the form's fields. Pure.

A field's name is its path in the JSON body, with a suffix for its type: `amount`, `destination.bank_code`, `steps.0.to`,
`seconds:int`, `ordered:bool`, `event_types:list`, `metadata:pairs`, `filters:json`, `to:time`. An empty field is left out;
with `:null` or `:int_or_null` it is null, with `:blank` an empty text. `filters:rows` is an empty list, unless other fields
fill its rows (`filters.0.field`); `payouts:csv` is a list of the rows of CSV. `:json` is the body itself: a choice that sets
several fields with one control. With a field named `[]`, the body is a list of the other fields' values. Names that begin with
`path.` or `query.` are parameters. Names that begin with `_` belong to the console; `_file` is a text that is sent as the
file if none is chosen.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sandbox.http.csv_items import read_items

LIST: Final = "[]"
"""The name of a field that makes the body a list."""
_INDEX: Final = re.compile(r"\[(\d+)\]")
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(:\d\d(?:\.\d+)?)?)?\s*([Zz]|[+-]\d\d:\d\d)?")
MAX_INDEX: Final = 100
MAX_DEPTH: Final = 8
"""Maximum number of nested objects that a field's name can describe."""


@dataclass(slots=True)
class FormState:
    """A submitted form: its id, its values, and the result. A page shows the form in this state."""

    id: str
    values: Mapping[str, list[str]]
    problem: Mapping[str, Any] | None = None
    """The problem that the API responded with."""
    result: Any = None
    """The API's response, for a form that shows it on the same page."""
    errors: dict[str, str] = field(default_factory=dict)
    """Field name without its type → message."""
    others: list[str] = field(default_factory=list)
    """Messages about fields that the form does not have."""


class UnreadableField(Exception):
    """A field's text cannot be converted, so that there is nothing to send to the API. `problem` has the shape of the API's."""

    def __init__(self, name: str, message: str) -> None:
        self.problem = {"title": "The form is not valid", "errors": [{"field": name, "message": message}]}
        super().__init__(f"{name}: {message}")


def body_of(fields: Iterable[tuple[str, str]]) -> Any:
    """Return the JSON body that a form's fields describe. Raises UnreadableField for CSV that is not valid."""
    values: dict[str, list[str]] = {}
    for name, value in fields:
        if not name.startswith(("_", "path.", "query.")):
            values.setdefault(name, []).append(value)
    body: dict[str, Any] = {}
    for name, given in values.items():
        path, _, kind = name.partition(":")
        try:
            value = _convert(given, kind)
        except ValueError as error:
            raise UnreadableField(path, str(error)) from error
        if not path:
            body |= value if isinstance(value, dict) else {}
        elif value is not _OMITTED:
            _put(body, path.split(".", MAX_DEPTH), value)
    if LIST in values:
        return list(body.values())
    return _without_gaps(body)


def object_of(fields: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return the JSON body of a form whose body is an object. Raises UnreadableField also if the fields describe a list."""
    body = body_of(fields)
    if not isinstance(body, dict):
        raise UnreadableField("form", "describes a list, not an object")
    return body


def parameters_of(fields: Iterable[tuple[str, str]], prefix: str) -> dict[str, str]:
    """Return the fields whose names begin with `prefix`, without it and without empty ones."""
    return {name.removeprefix(prefix): value for name, value in fields if name.startswith(prefix) and value}


def failed(state: FormState, problem: Mapping[str, Any]) -> FormState:
    """Return the form's state with the API's problem, whose errors are assigned to the form's fields."""
    names = {name.partition(":")[0] for name in state.values}
    state.problem = problem
    for error in problem.get("errors") or ():
        name = _INDEX.sub(r".\1", error["field"])
        found = next((known for known in _with_parents(name) if known in names), None)
        if found is None:
            state.others.append(f"{error['field']}: {error['message']}")
        else:
            own = error["message"] if found == name else f"{error['field']}: {error['message']}"
            state.errors[found] = f"{state.errors[found]}; {own}" if found in state.errors else own
    return state


def _with_parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts), 0, -1)]


_OMITTED: Final = object()


class _Rows(dict[str, Any]):
    """A list whose rows are fields of their own: index → row."""


def _convert(given: list[str], kind: str) -> Any:
    text = given[-1].strip() if kind != "text" else given[-1]
    if kind == "bool":
        return text in ("on", "true")
    if kind == "list":
        items = [item.strip() for value in given for item in re.split(r"[,\n]", value)]
        return [item for item in items if item] or _OMITTED
    if kind == "rows":
        return _Rows()
    if not text:
        return None if kind in ("null", "int_or_null") else "" if kind == "blank" else _OMITTED
    if kind == "csv":
        return read_items(text)
    if kind == "pairs":
        return _pairs(text)
    if kind == "time":
        return time_of(text)
    if kind in ("int", "int_or_null", "json"):
        # Send an invalid value unchanged, so that the API reports the error.
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text


def time_of(text: str) -> str:
    """Return a time in RFC 3339. The time of day, its seconds and the time zone (UTC) can be left out."""
    found = _TIME.fullmatch(text)
    if found is None:
        return text  # the API reports the error
    day, minutes, seconds, zone = found.groups()
    return f"{day}T{minutes or '00:00'}{seconds or ':00'}{zone or 'Z'}"


def _pairs(text: str) -> dict[str, str]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def _put(body: dict[str, Any], path: list[str], value: Any) -> None:
    for name in path[:-1]:
        inner = body.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        body = inner
    body[path[-1]] = value


def _without_gaps(value: Any) -> Any:
    """Replace objects with the keys 0, 1, … by lists, in order of the keys."""
    if not isinstance(value, dict):
        return value
    found = {name: _without_gaps(item) for name, item in value.items()}
    is_list = all(name.isascii() and name.isdigit() and int(name[:6]) <= MAX_INDEX for name in found)
    if is_list and (found or isinstance(value, _Rows)):
        return [found[name] for name in sorted(found, key=int)]
    return found


@dataclass(frozen=True, slots=True)
class FormFields:
    """A form as a template shows it: empty, or as it was submitted."""

    id: str
    state: FormState | None

    def value(self, name: str, default: Any = "") -> str:
        """Return the submitted value of a field, or the default if the form was not submitted."""
        if self.state is None:
            return "" if default is None else str(default)
        return next(iter(self.state.values.get(name, ())), "")

    def values(self, name: str, default: Sequence[str] = ()) -> Sequence[str]:
        """Return all values of a field, such as the choices of a list."""
        return default if self.state is None else self.state.values.get(name, [])

    def error(self, name: str) -> str:
        """Return the message beside a field, or an empty string."""
        return "" if self.state is None else self.state.errors.get(name.partition(":")[0], "")

    @property
    def problem(self) -> Mapping[str, Any] | None:
        """The problem that the API responded with."""
        return None if self.state is None else self.state.problem

    @property
    def others(self) -> Sequence[str]:
        """Messages about fields that the form does not have."""
        return [] if self.state is None else self.state.others

    @property
    def result(self) -> Any:
        """The API's response, for a form that stays on its page."""
        return None if self.state is None else self.state.result
