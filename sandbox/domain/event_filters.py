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

from sandbox.domain.bulk_credit import Activity
from sandbox.domain.errors import for_display
from sandbox.domain.payout import Payout

MAX_FILTERS: Final = 16
MAX_CHOICES: Final = 100
"""Maximum number of values of an `in` filter."""
_METADATA: Final = "data.metadata."
CHANGE: Final = "change"
"""A field for filters only: the previous status and the new one, as `change_of` writes them."""
KNOWN_FIELDS: Final = (
    "type",
    "previous_status",
    CHANGE,
    *(
        f"data.{name}"
        for name in dict.fromkeys((*Payout.__struct_fields__, *Activity.__struct_fields__))
        if name not in ("metadata", "counts")
    ),
    *(f"data.counts.{name}" for name in ("total", "invalid", "duplicates", "succeeded", "failed")),
)
"""The fields that a filter can name, besides those of the metadata."""
# Without leading zeros: the account number "0012" is not the number 12.
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")

FieldPath = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=128,
        pattern=rf"^({'|'.join(map(re.escape, KNOWN_FIELDS))}|data\.metadata\.[^\x00-\x1f\x7f]+)\Z",
        extra={
            "must": "type, previous_status, change, or a field of the event's data, such as data.amount or "
            "data.metadata.order_id",
            "names": KNOWN_FIELDS,
        },
    ),
]
_Number = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
_Integer = Annotated[int, msgspec.Meta(ge=-(10**15), le=10**15)]
_ANY: Final = "a number, a string of at most 500 characters, true, false or null"
_Text = Annotated[str, msgspec.Meta(max_length=500, extra={"must": "a number or a string of at most 500 characters"})]
_Choice = Annotated[str, msgspec.Meta(max_length=500, extra={"must": _ANY})] | _Integer | _Number | bool | None
_Choices = Annotated[list[_Choice], msgspec.Meta(min_length=1, max_length=MAX_CHOICES)]
_Prefix = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class _Filter(msgspec.Struct, forbid_unknown_fields=True, tag_field="op"):
    field: FieldPath


class EqFilter(_Filter, tag="eq"):
    """The field equals the value.

    Numbers, and strings that are written like numbers, compare as decimals: `"1500.00"` equals `1500`. A missing field equals
    null.
    """

    value: _Choice


class NeFilter(_Filter, tag="ne"):
    """The field does not equal the value, or is missing."""

    value: _Choice


class InFilter(_Filter, tag="in"):
    """The field equals one of the values."""

    value: _Choices


class GteFilter(_Filter, tag="gte"):
    """The field is at least this number or string. A missing field is not. RFC 3339 times in UTC are in order as strings."""

    value: _Text | _Integer | _Number


class LteFilter(_Filter, tag="lte"):
    """The field is at most this number or string. A missing field is not."""

    value: _Text | _Integer | _Number


class PrefixFilter(_Filter, tag="prefix"):
    """The field is a string that begins with the value."""

    value: _Prefix


class ExistsFilter(_Filter, tag="exists"):
    """The field is present (`true`, the default), or missing or null (`false`)."""

    value: bool = True


Filter = EqFilter | NeFilter | InFilter | GteFilter | LteFilter | PrefixFilter | ExistsFilter
"""A condition on an event's body. An endpoint receives an event only if all of its filters hold."""
Filters = Annotated[list[Filter], msgspec.Meta(max_length=MAX_FILTERS)]

_decode_filters: Final = msgspec.json.Decoder(list[Filter]).decode
_encode_filters: Final = msgspec.json.Encoder().encode


def to_text(filters: Sequence[Filter]) -> str | None:
    """Return filters as the JSON text that is stored; None without filters."""
    return _encode_filters(filters).decode() if filters else None


def from_text(text: str | None) -> list[Filter]:
    """Return the filters from their stored JSON text."""
    return [] if text is None else _decode_filters(text)


def matches(text: str, body: str) -> bool:
    """Return whether an event satisfies all filters. `text` is the filters' JSON, `body` the event's."""
    event = _decoded(body)
    return all(condition.holds(event) for condition in _compiled(text))


def first_unmet(text: str, body: str) -> str | None:
    """Return why an event does not match, in English: the first filter that does not hold. None if it matches."""
    event = _decoded(body)
    return next((condition.explain(event) for condition in _compiled(text) if not condition.holds(event)), None)


def change_of(previous_status: str | None, status: str | None) -> str:
    """Return what a filter of `change` compares: `RETRY>PROCESSING`, or `>PENDING` for a new payout."""
    return f"{previous_status or ''}>{status or ''}"


@lru_cache(maxsize=1)
def _decoded(body: str) -> Any:
    # The filters of several endpoints are checked one after the other, against the same event.
    event = msgspec.json.decode(body)
    event[CHANGE] = change_of(event.get("previous_status"), event["data"].get("status"))
    return event


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
    values = given.value if isinstance(given.value, list) else [given.value]
    return _Condition(given.field, path, str(given.__struct_config__.tag), tuple(_Operand(one, _number(one)) for one in values))


def _shown(value: Any) -> str:
    return for_display(value) if isinstance(value, str) else msgspec.json.encode(value).decode()[:100]
