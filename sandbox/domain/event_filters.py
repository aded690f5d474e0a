"""Filters of webhook endpoints: conditions on the body of an event. Pure.

A field that is missing and one that is null are the same. Numbers, and texts that are written like JSON numbers, compare as
decimals: "1500.00" equals 1500. Other texts compare by code point, which orders times correctly.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.body_errors import FieldProblem, for_display, suggestion
from sandbox.domain.bulk_credit import Activity
from sandbox.domain.choices import FilterOperator
from sandbox.domain.payout import Payout

MAX_FILTERS: Final = 16
MAX_CHOICES: Final = 100
"""Maximum number of values of an `in` filter."""
_METADATA: Final = "data.metadata."
_KNOWN_FIELDS: Final = (
    "type",
    "previous_status",
    *(f"data.{name}" for name in dict.fromkeys((*Payout.__struct_fields__, *Activity.__struct_fields__)) if name != "metadata"),
    *(f"data.counts.{name}" for name in ("total", "invalid", "duplicates", "succeeded", "failed")),
)
# Without leading zeros: the account number "0012" is not the number 12.
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")

FieldPath = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=128,
        pattern=r"^(type|previous_status|data\.[^\x00-\x1f\x7f]+)\Z",
        extra={"must": "type, previous_status, or a field of the event's data, such as data.amount or data.metadata.order_id"},
    ),
]
_Number = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
_Integer = Annotated[int, msgspec.Meta(ge=-(10**15), le=10**15)]
_SCALAR: Final = "a number, a string of at most 500 characters, true, false, null"
_Choice = Annotated[str, msgspec.Meta(max_length=500, extra={"must": _SCALAR.replace(", null", " or null")})]
_Choices = Annotated[list[_Choice | _Integer | _Number | bool | None], msgspec.Meta(min_length=1, max_length=MAX_CHOICES)]
_Text = Annotated[str, msgspec.Meta(max_length=500, extra={"must": f"{_SCALAR}, or a list of 1 to {MAX_CHOICES} of these"})]
FilterValue = _Text | _Integer | _Number | bool | _Choices | None


class Filter(msgspec.Struct, forbid_unknown_fields=True):
    """A condition on an event's body. An endpoint receives an event only if all of its filters hold.

    Numbers, and strings that look like numbers, are compared as decimals: `"1500.00"` equals `1500`. Other strings are compared
    character by character, so RFC 3339 times are in order. A field that is null counts as missing.

    - `eq`, `ne`: the field equals the value, or does not. A missing field equals only null.
    - `in`: the field equals one of the values in the list.
    - `gte`, `lte`: the field is at least, or at most, this number or string. A missing field never is.
    - `prefix`: the field is a string that begins with the value.
    - `exists`: the field is present (true, the default) or missing (false).
    """

    field: FieldPath
    op: FilterOperator
    value: FilterValue | UnsetType = UNSET


Filters = Annotated[list[Filter], msgspec.Meta(max_length=MAX_FILTERS)]

_decode_filters: Final = msgspec.json.Decoder(list[Filter]).decode
_encode_filters: Final = msgspec.json.Encoder().encode


def to_text(filters: Sequence[Filter]) -> str | None:
    """Return filters as the JSON text that is stored; None without filters."""
    return _encode_filters(filters).decode() if filters else None


def from_text(text: str | None) -> list[Filter]:
    """Return the filters from their stored JSON text."""
    return [] if text is None else _decode_filters(text)


def filter_errors(filters: Sequence[Filter | Mapping[str, Any]]) -> list[FieldProblem]:
    """Return the errors that the schema cannot express, with paths such as `filters[0].value`. Absent fields are skipped."""
    errors = []
    for index, given in enumerate(filters):
        fields = given if isinstance(given, Mapping) else msgspec.structs.asdict(given)
        field, op, value = (fields.get(name, UNSET) for name in ("field", "op", "value"))
        if field is not UNSET and (error := _field_error(field)):
            errors.append((f"filters[{index}].field", error))
        if op is not UNSET and (error := _value_error(op, value)):
            errors.append((f"filters[{index}].value", error))
    return errors


def matches(text: str, body: str) -> bool:
    """Return whether an event satisfies all filters. `text` is the filters' JSON, `body` the event's."""
    event = _decoded(body)
    return all(condition.holds(event) for condition in _compiled(text))


def first_unmet(text: str, body: str) -> str | None:
    """Return why an event does not match, in English: the first filter that does not hold. None if it matches."""
    event = _decoded(body)
    return next((condition.explain(event) for condition in _compiled(text) if not condition.holds(event)), None)


@lru_cache(maxsize=1)
def _decoded(body: str) -> Any:
    # The filters of several endpoints are checked one after the other, against the same event.
    return msgspec.json.decode(body)


class _Operand(NamedTuple):
    value: Any
    number: Decimal | None
    """The value as a number, if it is one."""


class _Condition(NamedTuple):
    field: str
    path: tuple[str, ...]
    op: str
    operands: tuple[_Operand, ...]

    def holds(self, event: Any) -> bool:
        """Return whether an event satisfies the condition."""
        found = self._find(event)
        if self.op == "exists":
            return (found is not None) is self.operands[0].value
        if self.op == "ne":
            return not _equal(found, self.operands[0])
        return any(_HOLDS[self.op](found, operand) for operand in self.operands)

    def explain(self, event: Any) -> str:
        """Say why the condition does not hold."""
        found = self._find(event)
        wanted = _shown(self.operands[0].value)
        if self.op == "exists":
            return f"{self.field} is missing" if found is None else f"{self.field} is present: {_shown(found)}"
        if self.op == "ne":
            return f"{self.field} is {_shown(found)}"
        if found is None:
            return f"{self.field} is missing or null"
        if self.op == "in":
            wanted = ", ".join(_shown(operand.value) for operand in self.operands[:10])
            if len(self.operands) > 10:
                wanted += ", …"
        return f"{self.field} {_shown(found)} {_IS_NOT[self.op]} {wanted}"

    def _find(self, event: Any) -> Any:
        found = event
        for name in self.path:
            if not isinstance(found, dict):
                return None
            found = found.get(name)
        return found


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return Decimal(value) if _NUMBER.fullmatch(value) else None
    return Decimal(str(value)) if isinstance(value, int | float) else None


def _equal(found: Any, wanted: _Operand) -> bool:
    if wanted.number is not None and (number := _number(found)) is not None:
        return number == wanted.number
    return type(found) is type(wanted.value) and bool(found == wanted.value)


def _compare(found: Any, wanted: _Operand) -> int | None:
    """Return -1, 0 or 1, or None if the two cannot be compared."""
    if wanted.number is not None and (number := _number(found)) is not None:
        return (number > wanted.number) - (number < wanted.number)
    if isinstance(found, str) and isinstance(wanted.value, str):
        return (found > wanted.value) - (found < wanted.value)
    return None


_HOLDS: Final[Mapping[str, Callable[[Any, _Operand], bool]]] = {
    "eq": _equal,
    "in": _equal,
    "gte": lambda found, wanted: _compare(found, wanted) in (0, 1),
    "lte": lambda found, wanted: _compare(found, wanted) in (0, -1),
    "prefix": lambda found, wanted: isinstance(found, str) and found.startswith(wanted.value),
}
_IS_NOT: Final = {"eq": "is not", "in": "is not one of", "gte": "is not ≥", "lte": "is not ≤", "prefix": "does not begin with"}


@lru_cache(maxsize=4096)
def _compiled(text: str) -> tuple[_Condition, ...]:
    return tuple(_condition(given) for given in _decode_filters(text))


def _condition(given: Filter) -> _Condition:
    if given.field.startswith(_METADATA):  # a metadata key can contain dots
        path: tuple[str, ...] = ("data", "metadata", given.field.removeprefix(_METADATA))
    else:
        path = tuple(given.field.split("."))
    value = True if given.value is UNSET else given.value
    values = value if isinstance(value, list) else [value]
    return _Condition(given.field, path, given.op, tuple(_Operand(one, _number(one)) for one in values))


def _field_error(field: str) -> str | None:
    if field in _KNOWN_FIELDS or (field.startswith(_METADATA) and field != _METADATA):
        return None
    if field in ("data.metadata", _METADATA):
        return "must name a key of the metadata, such as data.metadata.order_id"
    return f"is not a field of any event{suggestion(field, _KNOWN_FIELDS)}"


def _value_error(op: str, value: Any) -> str | None:
    if op == "exists":
        return None if value is UNSET or isinstance(value, bool) else "must be true or false, because op is exists"
    if value is UNSET:
        return "is required"
    if op == "in":
        return None if isinstance(value, list) else f"must be a list of 1 to {MAX_CHOICES} values, because op is in"
    if isinstance(value, list):
        return f"must be one value, because op is {op}; use in for a list"
    if op in ("gte", "lte") and (value is None or isinstance(value, bool)):
        return f"must be a number or a string, because op is {op}"
    if op == "prefix" and not (isinstance(value, str) and value):
        return "must be a string of at least one character, because op is prefix"
    return None


def _shown(value: Any) -> str:
    return for_display(value) if isinstance(value, str) else msgspec.json.encode(value).decode()[:100]
