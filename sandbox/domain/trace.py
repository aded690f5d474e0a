"""The W3C trace context (`traceparent`) of requests, payouts and webhooks. Pure.

A payout belongs to the trace of the API call that created it. If that call sent no `traceparent`, its trace is derived from
the request id. So only a trace that cannot be derived is stored, and two worlds with one seed have the same traces.
"""

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

HEADER: Final = "traceparent"
_HEADER: Final = HEADER.encode()
_FORMAT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z", re.DOTALL)
_SAMPLED: Final = 1


def given(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the caller's `traceparent` from headers with lower-case names, or None to start a new trace.

    As the specification requires, an invalid header is ignored, and so are two of them. A later version than 00 becomes
    version 00, without the parts that 00 does not define.
    """
    values = [value for name, value in headers if name == _HEADER]
    match = _FORMAT.match(values[0]) if len(values) == 1 else None
    if match is None:
        return None
    version, trace, span, flags, rest = match.groups()
    if version == b"ff" or (version == b"00" and rest is not None) or not int(trace, 16) or not int(span, 16):
        return None
    if version != b"00":
        flags = b"%02x" % (int(flags, 16) & _SAMPLED)
    return b"-".join((b"00", trace, span, flags)).decode()


def derive(request_id: str) -> str:
    """Return the trace of a request without a `traceparent`: always the same for the same request id."""
    digest = sha256(request_id.encode()).hexdigest()
    return f"00-{digest[:32]}-{digest[32:48]}-01"


def trace_id(traceparent: str) -> str:
    """Return the id of the trace, 32 hexadecimal digits."""
    return traceparent[3:35]


def span_id(traceparent: str) -> str:
    """Return the id of the span, 16 hexadecimal digits."""
    return traceparent[36:52]
