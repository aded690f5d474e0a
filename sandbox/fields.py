"""Types of members, and the body without any, that requests of several kinds share. Pure."""

from typing import Annotated, Final

import msgspec

# \Z and not $, which also matches before a final newline. Control characters have no place in any of these.
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*\Z"

Text64 = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=PRINTABLE)]
Text140 = Annotated[str, msgspec.Meta(min_length=1, max_length=140, pattern=PRINTABLE)]
Text500 = Annotated[str, msgspec.Meta(max_length=500, pattern=PRINTABLE)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=PRINTABLE)]
Url = Annotated[str, msgspec.Meta(min_length=1, max_length=2000, pattern=r"^[!-~]*\Z")]
Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")]
FailureCode = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Z0-9_]*\Z")]


class EmptyBody(msgspec.Struct, forbid_unknown_fields=True):
    """`{}`: an action that takes nothing."""
