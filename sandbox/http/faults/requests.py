"""Request bodies for faults and their validation. Pure."""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from sandbox.domain.enumerations import FaultTarget, Method
from sandbox.domain.errors import invalid_fields
from sandbox.domain.fields import Probability, Uuid
from sandbox.http.fault import MAX_MS

MAX_FAULTS: Final = 50
"""Maximum number of faults per merchant. Each of the merchant's requests checks all of them."""

# JSON has one type of number: 60 and 60.0 are the same whole number.
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=MAX_MS)]
Count = Annotated[float, msgspec.Meta(ge=1, le=1_000_000, multiple_of=1)]
Skip = Annotated[float, msgspec.Meta(ge=0, le=1_000_000, multiple_of=1)]
Ttl = Annotated[float, msgspec.Meta(gt=0, le=3650 * 86400)]
Seed = Annotated[float, msgspec.Meta(ge=0, le=2**53 - 1, multiple_of=1)]
Status = Annotated[float, msgspec.Meta(ge=400, le=599, multiple_of=1)]
RetryAfter = Annotated[float, msgspec.Meta(ge=0, le=3600, multiple_of=1)]
Pattern = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]*\Z",
        extra={"must": "a string of 1 to 200 ASCII characters without spaces"},
    ),
]
EventPattern = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[a-z_.*]*\Z",
        extra={"must": "an event type such as payout.failed, or a pattern such as payout.*"},
    ),
]
Part = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=64,
        pattern=r'^[^\x00-\x1f\x7f"\\]*\Z',
        extra={"must": "a string of 1 to 64 characters without quotes, backslashes and control characters"},
    ),
]


class RequestMatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Which API requests match. `reference` is part of the body's merchant_reference; it and `path` can contain `*`.

    `api_key_id` is the id of the key that the request is made with.
    """

    method: Method | UnsetType = UNSET
    path: Pattern | UnsetType = UNSET
    reference: Part | UnsetType = UNSET
    api_key_id: Uuid | UnsetType = UNSET


class DeliveryMatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Which deliveries match. `event_type` can contain `*`."""

    event_type: EventPattern | UnsetType = UNSET
    endpoint_id: Uuid | UnsetType = UNSET


class EitherMatch(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Which requests (`method`, `path`, `reference`, `api_key_id`) or deliveries (`event_type`, `endpoint_id`) match."""

    method: Method | UnsetType = UNSET
    path: Pattern | UnsetType = UNSET
    reference: Part | UnsetType = UNSET
    api_key_id: Uuid | UnsetType = UNSET
    event_type: EventPattern | UnsetType = UNSET
    endpoint_id: Uuid | UnsetType = UNSET


class _Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    probability: Probability = 1.0
    count: Count | None = None
    skip: Skip = 0.0
    ttl_seconds: Ttl | None = None
    seed: Seed | None = None


class _ApiFault(_Fault, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    target: Literal["api"]
    match: RequestMatch = msgspec.field(default_factory=RequestMatch)


class _DeliveryFault(_Fault, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    target: Literal["webhooks"]
    match: DeliveryMatch = msgspec.field(default_factory=DeliveryMatch)


class LatencyFault(_ApiFault, forbid_unknown_fields=True, kw_only=True, tag="latency"):
    """Responds this many milliseconds later; with a `sigma`, the delay is lognormal with that median, at most a minute."""

    milliseconds: Milliseconds
    sigma: Annotated[float, msgspec.Meta(ge=0, le=3)] = 0.0


class ErrorFault(_ApiFault, forbid_unknown_fields=True, kw_only=True, tag="error"):
    """Responds with this status and the nearest code, without executing the request.

    With `after_effect`, it executes the request, and then responds like a gateway that has lost the answer: with an HTML page.
    402 gets INSUFFICIENT_BALANCE, 410 NOT_FOUND, 412 INVALID_STATE, 414 and 431 PAYLOAD_TOO_LARGE, 423 and 425
    IDEMPOTENCY_KEY_IN_FLIGHT, 428 MISSING_IDEMPOTENCY_KEY, 451 FORBIDDEN. A status that this API does not use, such as 418 or
    502, gets UNAVAILABLE.
    """

    status: Status
    when: Literal["before_effect", "after_effect"] | UnsetType = UNSET


class RateLimitFault(_ApiFault, forbid_unknown_fields=True, kw_only=True, tag="rate_limit"):
    """Responds with 429 and Retry-After, without executing the request."""

    retry_after: RetryAfter = 1.0


class ConnectionResetFault(_ApiFault, forbid_unknown_fields=True, kw_only=True, tag="connection_reset"):
    """Resets the connection instead of responding: after the request was executed or, with `before_effect`, in its place."""

    when: Literal["before_effect", "after_effect"] = "after_effect"


class SlowAfterCommitFault(_ApiFault, forbid_unknown_fields=True, kw_only=True, tag="slow_after_commit"):
    """Executes the request, then responds this many milliseconds later."""

    milliseconds: Milliseconds


class TruncatedBodyFault(_Fault, forbid_unknown_fields=True, kw_only=True, tag="truncated_body"):
    """Breaks off the response in the middle of its body, or sends half of a webhook's body."""

    target: FaultTarget
    match: EitherMatch = msgspec.field(default_factory=EitherMatch)


class DropFault(_DeliveryFault, forbid_unknown_fields=True, kw_only=True, tag="drop"):
    """Does not send: the attempt fails and is retried on schedule."""


class DuplicateFault(_DeliveryFault, forbid_unknown_fields=True, kw_only=True, tag="duplicate"):
    """Sends twice."""


class DelayFault(_DeliveryFault, forbid_unknown_fields=True, kw_only=True, tag="delay"):
    """Delays sending until this many milliseconds, in the merchant's time, after the event."""

    milliseconds: Annotated[float, msgspec.Meta(ge=1, le=7 * 86_400_000)]


class ReorderFault(_DeliveryFault, forbid_unknown_fields=True, kw_only=True, tag="reorder"):
    """Holds a delivery back until the next one to its endpoint has been sent, for one second at most."""


class StaleTimestampFault(_DeliveryFault, forbid_unknown_fields=True, kw_only=True, tag="stale_timestamp"):
    """Signs with a timestamp this many seconds old. Has no effect on a signature without one, such as GitHub's."""

    seconds: Annotated[float, msgspec.Meta(ge=301, le=86_400, multiple_of=1)] = 3600.0


class WrongKeyFault(_DeliveryFault, forbid_unknown_fields=True, kw_only=True, tag="wrong_key"):
    """Signs with another secret."""


class TamperedBodyFault(_DeliveryFault, forbid_unknown_fields=True, kw_only=True, tag="tampered_body"):
    """Changes the body after signing it."""


FaultBody = (
    LatencyFault | ErrorFault | RateLimitFault | ConnectionResetFault | SlowAfterCommitFault | TruncatedBodyFault
    | DropFault | DuplicateFault | DelayFault | ReorderFault | StaleTimestampFault | WrongKeyFault | TamperedBodyFault
)  # fmt: skip
"""The body of `POST /faults`, by its `kind`."""

COMMON: Final = ("target", "match", "probability", "count", "skip", "ttl_seconds", "seed")
"""The fields that every kind has. All others are its parameters."""


def match_of(body: FaultBody) -> dict[str, str]:
    """Return the fields of a fault's match that are set. Raises VALIDATION_ERROR if one does not fit the fault's target."""
    given = {name: value for name, value in msgspec.structs.asdict(body.match).items() if value is not UNSET}
    known = RequestMatch if body.target == "api" else DeliveryMatch
    unknown = [name for name in given if name not in known.__struct_fields__]
    if unknown:
        raise invalid_fields([(f"match.{name}", f"is not supported for target {body.target}") for name in unknown])
    return given


def parameters_of(body: FaultBody) -> dict[str, float | str]:
    """Return the parameters of a fault's kind. Whole numbers become int, whether written 60 or 60.0."""
    own = {name: value for name, value in msgspec.structs.asdict(body).items() if name not in COMMON and value is not UNSET}
    return {name: int(value) if isinstance(value, float) and value == int(value) else value for name, value in own.items()}


def kind_of(body: FaultBody) -> str:
    """Return the name of the fault's kind."""
    return str(type(body).__struct_config__.tag)
