"""Types of the requests to the aggregator. Pure."""

from typing import Annotated

import msgspec

from sandbox.domain.fields import Url
from sandbox.domain.redaction import Secret
from sandbox.users.aggregator.vendor_rows import MAX_USER_ID_LENGTH

VendorUserId = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=MAX_USER_ID_LENGTH,
        description="The user's id at the vendor.",
        extra={"must": f"a string of 1 to {MAX_USER_ID_LENGTH} characters"},
    ),
]
# Only headers that carry keys. A merchant must not set headers such as Host or Content-Length.
HeaderName = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^([Xx]-[A-Za-z0-9-]{1,60}|[Aa]uthorization|[Aa]pi-?[Kk]ey)\Z",
        extra={"must": "Authorization, Api-Key, or a name that begins with X-"},
    ),
]
HeaderValue = Annotated[
    Secret,
    msgspec.Meta(
        min_length=1,
        max_length=1000,
        pattern=r"^[!-~]([ -~]*[!-~])?\Z",
        extra={"must": "a string of 1 to 1000 printable ASCII characters that neither starts nor ends with a space"},
    ),
]


class SourceBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body of `PUT /source`. Without a `url`, the sandbox's own feed is read and `headers` is ignored."""

    url: Url | None
    headers: Annotated[dict[HeaderName, HeaderValue], msgspec.Meta(max_length=10)] = msgspec.field(default_factory=dict)
