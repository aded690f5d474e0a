"""Field types that several requests share, and the empty body. Pure."""

from typing import Annotated, Final

import msgspec

from sandbox.domain.ids import UUID_PATTERN
from sandbox.domain.redaction import Address

# \Z and not $, which also matches before a final newline. No field may contain control characters.
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*\Z"

# `extra["must"]` completes the error message "must be …" of a type whose pattern would be hard to read. If a refused string is
# similar to one of `extra["names"]`, the message suggests that one.
Amount = Annotated[msgspec.Raw, msgspec.Meta(extra={"amount": True})]
AmountOrNull = Annotated[msgspec.Raw, msgspec.Meta(extra={"amount": True, "null": True})]
AmountOrZero = Annotated[msgspec.Raw, msgspec.Meta(extra={"amount": True, "null": True, "zero": True})]
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
        extra={"must": "a URL of at most 2000 characters, in ASCII and without spaces"},
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
        extra={"must": "a string of 1 to 64 capital letters, digits and underscores, such as BANK_REJECTED"},
    ),
]


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True):
    """`{}`: an action without parameters."""
