"""Types of fields that several bodies share, and the empty body. Pure.

A request's type is both the check and the documentation. A response is not checked: its types only document. In both, a
keyword `x-documented-…` of `extra_json_schema` takes the place of msgspec's own: it says what code checks, in better words.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Final, get_args

import msgspec

from sandbox.domain.ids import UUID_PATTERN
from sandbox.domain.redaction import Address

# \Z and not $, which also matches before a final newline. No field may contain control characters.
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*\Z"

# `extra["must"]` completes the error message "must be …" of a type whose pattern would be hard to read. If a refused string is
# similar to one of `extra["names"]`, the message suggests that one.
_AMOUNT: Final = {"$ref": "#/components/schemas/Amount"}
Amount = Annotated[msgspec.Raw, msgspec.Meta(extra={"amount": True}, extra_json_schema=_AMOUNT)]
AmountOrNull = Annotated[
    msgspec.Raw,
    msgspec.Meta(extra={"amount": True, "null": True}, extra_json_schema={"anyOf": [_AMOUNT, {"type": "null"}]}),
]
AmountOrZero = Annotated[
    msgspec.Raw,
    msgspec.Meta(
        extra={"amount": True, "null": True, "zero": True},
        extra_json_schema={"anyOf": [_AMOUNT, {"enum": [0, "0", "0.00", None]}]},
    ),
]
"""Amounts as raw JSON, a string or a number, so that nothing rounds them before `parse_amount` reads the digits."""
Text64 = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=PRINTABLE)]
Text140 = Annotated[str, msgspec.Meta(min_length=1, max_length=140, pattern=PRINTABLE)]
Text500 = Annotated[str, msgspec.Meta(max_length=500, pattern=PRINTABLE)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=PRINTABLE)]
Url = Annotated[
    Address,
    msgspec.Meta(
        min_length=1,
        max_length=2000,
        pattern=r"^[!-~]*\Z",
        description="http:// or https://, with no user name or password; an IPv4 address is four decimal numbers; private "
        "addresses may be rejected.",
        extra={"must": "a URL of at most 2000 characters, in ASCII and without spaces"},
        extra_json_schema={"format": "uri", "x-documented-pattern": "^https?://[!-~]+$"},
    ),
]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Time = Annotated[str, msgspec.Meta(max_length=64, extra_json_schema={"format": "date-time"})]
Uuid = Annotated[
    str,
    msgspec.Meta(
        pattern=UUID_PATTERN,
        extra={"must": "an id: a UUID in lower case"},
        extra_json_schema={"format": "uuid"},
    ),
]
FailureCode = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Z0-9_]*\Z",
        description="Why it failed: a code such as BANK_REJECTED, or one of your own.",
        extra={"must": "a string of 1 to 64 capital letters, digits and underscores, such as BANK_REJECTED"},
    ),
]
Id = Annotated[str, msgspec.Meta(extra_json_schema={"format": "uuid"})]
Timestamp = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
Count = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0})]
AlwaysFalse = Annotated[bool, msgspec.Meta(extra_json_schema={"const": False})]


def about(text: str) -> msgspec.Meta:
    """Return the description of a field, in the document and in the help of the command line."""
    return msgspec.Meta(description=text)


def one_of(choices: Any) -> msgspec.Meta:
    """Return the documentation of a response's field that is one of a Literal's choices, or of these choices."""
    return msgspec.Meta(extra_json_schema={"enum": list(choices if isinstance(choices, Sequence) else get_args(choices))})


def results_of(created: str, most: int) -> msgspec.Meta:
    """Return the documentation of a batch's results: objects of the component `created`, and problems for refused items."""
    items = [{"$ref": f"#/components/schemas/{name}"} for name in (created, "RefusedItem")]
    return msgspec.Meta(extra_json_schema={"x-documented-items": {"oneOf": items}, "minItems": 1, "maxItems": most})


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True):
    """`{}`: an action without parameters."""
