"""Every error of the API: RFC 9457 problems, each code with its status, title and resolution. Pure."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from sandbox.domain.idempotency_key import KEY_RULE
from sandbox.domain.redaction import path, scrub

MEDIA_TYPE: Final = "application/problem+json"
_MAX_IN_DETAIL: Final = 5
"""Maximum number of errors that a problem's detail repeats."""


class Kind(msgspec.Struct, frozen=True):
    """The meaning of an error code: HTTP status, title, and how to fix the error."""

    status: int
    title: str
    resolution: str


CODES: Final[dict[str, Kind]] = {
    "VALIDATION_ERROR": Kind(400, "The request is not valid", "Correct the fields listed in `errors` and send it again."),
    "MALFORMED_JSON": Kind(
        400, "The body is not valid JSON", "Send one JSON value, encoded in UTF-8. `detail` says what is wrong."
    ),
    "MISSING_IDEMPOTENCY_KEY": Kind(
        400,
        "An idempotency key is required",
        "Send an X-IDEMPOTENCY-KEY header. Use a new value for each operation, and the same value when you retry it.",
    ),
    "INVALID_IDEMPOTENCY_KEY": Kind(400, "The idempotency key is not valid", f"Use {KEY_RULE}, such as a UUID."),
    "MISSING_API_KEY": Kind(
        401, "An API key is required", "Send your key in an `X-API-KEY` or `Authorization: Bearer` header."
    ),
    "INVALID_API_KEY": Kind(
        401, "The API key is not valid", "Check the key: it is mistyped, revoked, or belongs to another sandbox."
    ),
    "INVALID_SIGNATURE": Kind(
        401,
        "The signature is not valid",
        "Sign `{webhook-id}.{webhook-timestamp}.{raw body}` with the merchant's IPN secret. The timestamp must be within "
        "5 minutes of the current time.",
    ),
    "FORBIDDEN": Kind(403, "The API key's role does not allow this", "Use a key with the `admin` role."),
    "NOT_FOUND": Kind(404, "Resource not found", "Check the path and the id. A key finds only objects of its own merchant."),
    "METHOD_NOT_ALLOWED": Kind(405, "Method not allowed", "Use one of the methods in the Allow header."),
    "NOT_ACCEPTABLE": Kind(406, "Only JSON is supported", "Send `Accept: application/json`, or no Accept header."),
    "REQUEST_TIMEOUT": Kind(408, "The request took too long to arrive", "Send the whole request without long pauses."),
    "DUPLICATE_REFERENCE": Kind(
        409,
        "The reference is already in use",
        "Use a new reference. `detail` names the field: `merchant_reference` and `psp_reference` are unique for each payout, "
        "`external_id` and `vendor_user_id` for each user.",
    ),
    "INVALID_STATE": Kind(409, "The current state does not allow this", "`detail` says what is allowed in this state."),
    "IDEMPOTENCY_KEY_IN_FLIGHT": Kind(
        409,
        "The first request with this idempotency key is still running",
        "Wait a moment, then retry with the same idempotency key.",
    ),
    "ALREADY_RECONCILED": Kind(409, "The sale is already reconciled", "Remove it from the request."),
    "NOT_RETRYABLE": Kind(409, "There is nothing to retry", "Retry only a bulk credit that has failed rows."),
    "PAYLOAD_TOO_LARGE": Kind(413, "The request body is too large", "Split it into several requests."),
    "UNSUPPORTED_MEDIA_TYPE": Kind(
        415, "Media type not supported", "Send `Content-Type: application/json` and an uncompressed body."
    ),
    "INSUFFICIENT_BALANCE": Kind(422, "The available balance is too low", "Top up the balance, or send a smaller amount."),
    "IDEMPOTENCY_KEY_REUSED": Kind(
        422, "The idempotency key was used for another request", "Use a new idempotency key for each new request."
    ),
    "RATE_LIMITED": Kind(429, "Too many requests", "Wait for the number of seconds in the Retry-After header, then retry."),
    "HEADERS_TOO_LARGE": Kind(
        431, "The request headers are too large", "Send at most 64 KB of request line and headers in total."
    ),
    "INTERNAL_ERROR": Kind(
        500, "Internal error", "Retry with the same idempotency key. If it fails again, report the `request_id`."
    ),
    "UNAVAILABLE": Kind(
        503,
        "Service unavailable",
        "Wait for the number of seconds in the Retry-After header, then retry with the same idempotency key. Nothing was lost.",
    ),
}
"""The documentation lists them in this order."""
CONTENTION: Final = "Other requests kept changing the same data. Retry this one."
"""The detail of UNAVAILABLE when transactions conflicted too often."""


class FieldError(msgspec.Struct, frozen=True):
    """The error of one field of the request."""

    field: str
    message: str


class ProblemBody(msgspec.Struct, omit_defaults=True, rename={"kind": "type"}):
    """RFC 9457 problem details, with this API's extensions."""

    kind: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldError] | None = None


class RefusedItem(msgspec.Struct):
    """A refused item of a batch. Its error paths start with its position, such as `payouts[2].amount`."""

    status: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 400, "maximum": 499})]
    problem: ProblemBody


class Problem(Exception):
    """An error response: a code of CODES, a detail about this request, and optional headers."""

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        errors: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        kind = CODES[code]
        super().__init__(f"{code}: {detail or kind.title}")
        self.code = code
        self.status = kind.status
        self.detail = detail or kind.resolution
        self.errors = errors
        self.headers: Mapping[str, str] = headers or {}

    def body(self, public_url: str, instance: str, request_id: str) -> bytes:
        """Return the problem as JSON. `instance` is the request's path; links to the problem types begin with `public_url`."""
        return _ENCODER.encode(
            ProblemBody(
                kind=f"{public_url}/problems/{self.code}",
                title=CODES[self.code].title,
                status=self.status,
                detail=scrub(self.detail),
                instance=path(instance),
                code=self.code,
                request_id=request_id,
                errors=[FieldError(scrub(field), scrub(message)) for field, message in self.errors] or None,
            )
        )

    def within(self, place: str) -> "Problem":
        """Return the problem of one part of the request, such as `payouts[2]`, with this prefix in its error paths."""
        if self.code == "VALIDATION_ERROR":
            return invalid_fields(
                [(place if field == "body" else f"{place}.{field}", message) for field, message in self.errors]
            )
        if self.code == "MALFORMED_JSON":
            return Problem(self.code, f"{place}: {self.detail}", errors=[(place, self.detail.rstrip("."))])
        return self


def invalid(field: str, message: str) -> Problem:
    """Return a VALIDATION_ERROR for one field."""
    return invalid_fields([(field, message)])


def invalid_fields(errors: Sequence[tuple[str, str]]) -> Problem:
    """Return a VALIDATION_ERROR for several fields, each given as its path and the error message."""
    listed = "; ".join(f"{field}: {message.rstrip('.')}" for field, message in errors[:_MAX_IN_DETAIL])
    more = f"; and {len(errors) - _MAX_IN_DETAIL} more" if len(errors) > _MAX_IN_DETAIL else ""
    end = "" if not more and listed.endswith("?") else "."
    return Problem("VALIDATION_ERROR", f"{listed}{more}{end}", errors=errors)


def unavailable(detail: str = "", retry_after: int = 1) -> Problem:
    """Return a 503 with a Retry-After header of `retry_after` seconds."""
    return Problem("UNAVAILABLE", detail, headers={"Retry-After": str(retry_after)})


_ENCODER: Final = msgspec.json.Encoder()


def for_display(text: str) -> str:
    """Return a client's text in a form that is safe to repeat in a response: short and printable."""
    return "".join(c if c.isprintable() else "�" for c in text[:100])
