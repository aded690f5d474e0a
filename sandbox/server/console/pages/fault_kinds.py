"""How the console presents each kind of fault: its name, what it does, its own fields, and examples. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from sandbox.domain.enumerations import FaultKind, FaultTarget

NEW: Final = "/world/faults/new"


@dataclass(frozen=True, slots=True)
class Field:
    """A field that only some kinds have. `value` is entered at first, `placeholder` is an example."""

    name: str
    label: str
    value: str = ""
    placeholder: str = ""
    help: str = ""
    is_required: bool = True
    choices: tuple[tuple[str, str], ...] = ()
    """Values with their texts, if only these are possible."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault with its target."""

    kind: FaultKind
    target: FaultTarget
    title: str
    what: str
    fields: tuple[Field, ...] = ()

    @property
    def href(self) -> str:
        """The page with the form for this kind."""
        return f"{NEW}?{urlencode({'kind': self.kind, 'target': self.target})}"


@dataclass(frozen=True, slots=True)
class Example:
    """A fault ready to be created: the fields of its form."""

    title: str
    fields: Mapping[str, str]

    @property
    def href(self) -> str:
        """The page with the form, filled in."""
        return f"{NEW}?{urlencode(self.fields)}"


_LATE: Final = Field("milliseconds:int", "Milliseconds", placeholder="2000", help="Up to 60000.")


def _when(default: str) -> Field:
    choices = (("after_effect", "After the request is executed"), ("before_effect", "Before the request is executed"))
    return Field("when", "When", default, is_required=False, choices=choices)


KINDS: Final = (
    Kind(
        "latency",
        "api",
        "Slow response",
        "Waits before it executes the request.",
        (
            _LATE,
            Field(
                "sigma:int",
                "Spread",
                placeholder="0.5",
                help="Makes the delay vary around the milliseconds (lognormal). Empty: always the same.",
                is_required=False,
            ),
        ),
    ),
    Kind(
        "error",
        "api",
        "Error response",
        "Responds with an error, without executing the request or, like a gateway that loses the answer, after it.",
        (Field("status:int", "Status", placeholder="503", help="400 to 599."), _when("before_effect")),
    ),
    Kind(
        "rate_limit",
        "api",
        "Rate limit",
        "Responds with 429, without executing the request.",
        (Field("retry_after:int", "Retry-After", placeholder="5", help="In seconds; 1 if empty.", is_required=False),),
    ),
    Kind(
        "connection_reset",
        "api",
        "Lost connection",
        "Resets the connection, before or after it executes the request.",
        (_when("after_effect"),),
    ),
    Kind("slow_after_commit", "api", "Late response", "Executes the request, then responds late.", (_LATE,)),
    Kind("truncated_body", "api", "Truncated response", "Breaks off the response in the middle of its body."),
    Kind("drop", "webhooks", "Lost webhook", "Does not send: the attempt fails and is retried on schedule."),
    Kind("duplicate", "webhooks", "Duplicate webhook", "Sends the same webhook twice."),
    Kind(
        "delay",
        "webhooks",
        "Late webhook",
        "Sends this long after the event.",
        (Field("milliseconds:int", "Milliseconds", placeholder="600000", help="In the merchant's time; up to 7 days."),),
    ),
    Kind("reorder", "webhooks", "Webhooks out of order", "Holds a webhook back until the next one is sent, at most a second."),
    Kind(
        "stale_timestamp",
        "webhooks",
        "Old timestamp",
        "Signs with an old timestamp, as in a replay attack.",
        (Field("seconds:int", "Age in seconds", placeholder="3600", help="301 to 86400; 3600 if empty.", is_required=False),),
    ),
    Kind("wrong_key", "webhooks", "Wrong signature", "Signs with another secret."),
    Kind("tampered_body", "webhooks", "Changed body", "Changes the body after signing it."),
    Kind("truncated_body", "webhooks", "Truncated webhook", "Sends half of the body."),
)

_CREATE: Final = {"match.method": "POST", "match.path": "/api/v1/payouts"}
EXAMPLES: Final = (
    Example(
        "The sandbox is down for one request",
        {"kind": "error", "target": "api", "status": "503", "match.path": "/api/v1/payouts*", "count": "1"},
    ),
    Example(
        "A payout is created, but your client times out",
        {"kind": "slow_after_commit", "target": "api", "milliseconds": "35000", **_CREATE, "count": "1"},
    ),
    Example(
        "A payout is created, but the response is lost",
        {"kind": "connection_reset", "target": "api", **_CREATE, "count": "1"},
    ),
    Example(
        "Half of all requests fail, the same ones each time",
        {"kind": "error", "target": "api", "status": "500", "probability": "0.5", "seed": "7"},
    ),
    Example(
        "A webhook fails three times, then arrives",
        {"kind": "drop", "target": "webhooks", "match.event_type": "payout.*", "count": "3"},
    ),
    Example("Each webhook arrives twice", {"kind": "duplicate", "target": "webhooks"}),
    Example(
        "The webhook of a failure comes ten minutes late",
        {"kind": "delay", "target": "webhooks", "milliseconds": "600000", "match.event_type": "payout.failed"},
    ),
    Example("One webhook has a wrong signature", {"kind": "wrong_key", "target": "webhooks", "count": "1"}),
)


def find_kind(kind: str, target: str) -> Kind | None:
    """Return a kind of fault. If it has one target only, the target can be left out."""
    found = [known for known in KINDS if known.kind == kind and target in ("", known.target)]
    return found[0] if found else None
