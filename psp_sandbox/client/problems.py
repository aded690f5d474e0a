"""One exception for each code of the API."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from psp_sandbox.client.errors import ProblemError


class AlreadyReconciled(ProblemError):
    """ALREADY_RECONCILED (409): The sale is already reconciled. Remove it from the request."""


class DuplicateReference(ProblemError):
    """DUPLICATE_REFERENCE (409): The reference is already in use. Use a new reference. `detail` names the field:
    `merchant_reference` and `psp_reference` are unique for each payout, `external_id` and `vendor_user_id` for each
    user.
    """


class Forbidden(ProblemError):
    """FORBIDDEN (403): The API key's role does not allow this. Use a key with the `admin` role."""


class IdempotencyKeyInFlight(ProblemError):
    """IDEMPOTENCY_KEY_IN_FLIGHT (409): The first request with this idempotency key is still running. Wait a moment,
    then retry with the same idempotency key.
    """


class IdempotencyKeyReused(ProblemError):
    """IDEMPOTENCY_KEY_REUSED (422): The idempotency key was used for another request. Use a new idempotency key for
    each new request.
    """


class InsufficientBalance(ProblemError):
    """INSUFFICIENT_BALANCE (422): The available balance is too low. Top up the balance, or send a smaller amount."""


class InternalError(ProblemError):
    """INTERNAL_ERROR (500): Internal error. Retry with the same idempotency key. If it fails again, report the
    `request_id`.
    """


class InvalidApiKey(ProblemError):
    """INVALID_API_KEY (401): The API key is not valid. Check the key: it is mistyped, revoked, or belongs to another
    sandbox.
    """


class InvalidIdempotencyKey(ProblemError):
    """INVALID_IDEMPOTENCY_KEY (400): The idempotency key is not valid. Use 1 to 255 printable ASCII characters, such
    as a UUID.
    """


class InvalidState(ProblemError):
    """INVALID_STATE (409): The current state does not allow this. `detail` says what is allowed in this state."""


class MalformedJson(ProblemError):
    """MALFORMED_JSON (400): The body is not valid JSON. Send one JSON value, encoded in UTF-8. `detail` says what is
    wrong.
    """


class MissingApiKey(ProblemError):
    """MISSING_API_KEY (401): An API key is required. Send your key in an `X-API-KEY` or `Authorization: Bearer`
    header.
    """


class MissingIdempotencyKey(ProblemError):
    """MISSING_IDEMPOTENCY_KEY (400): An idempotency key is required. Send an X-IDEMPOTENCY-KEY header. Use a new value
    for each operation, and the same value when you retry it.
    """


class NotAcceptable(ProblemError):
    """NOT_ACCEPTABLE (406): Only JSON is supported. Send `Accept: application/json`, or no Accept header."""


class NotFound(ProblemError):
    """NOT_FOUND (404): Resource not found. Check the path and the id. A key finds only objects of its own merchant."""


class NotRetryable(ProblemError):
    """NOT_RETRYABLE (409): There is nothing to retry. Retry only a bulk credit that has failed rows."""


class PayloadTooLarge(ProblemError):
    """PAYLOAD_TOO_LARGE (413): The request body is too large. Split it into several requests."""


class RateLimited(ProblemError):
    """RATE_LIMITED (429): Too many requests. Wait for the number of seconds in the Retry-After header, then retry."""


class Unavailable(ProblemError):
    """UNAVAILABLE (503): Service unavailable. Wait for the number of seconds in the Retry-After header, then retry
    with the same idempotency key. Nothing was lost.
    """


class UnsupportedMediaType(ProblemError):
    """UNSUPPORTED_MEDIA_TYPE (415): Media type not supported. Send `Content-Type: application/json` and an
    uncompressed body.
    """


class ValidationError(ProblemError):
    """VALIDATION_ERROR (400): The request is not valid. Correct the fields listed in `errors` and send it again."""


BY_CODE: dict[str, type[ProblemError]] = {
    "ALREADY_RECONCILED": AlreadyReconciled,
    "DUPLICATE_REFERENCE": DuplicateReference,
    "FORBIDDEN": Forbidden,
    "IDEMPOTENCY_KEY_IN_FLIGHT": IdempotencyKeyInFlight,
    "IDEMPOTENCY_KEY_REUSED": IdempotencyKeyReused,
    "INSUFFICIENT_BALANCE": InsufficientBalance,
    "INTERNAL_ERROR": InternalError,
    "INVALID_API_KEY": InvalidApiKey,
    "INVALID_IDEMPOTENCY_KEY": InvalidIdempotencyKey,
    "INVALID_STATE": InvalidState,
    "MALFORMED_JSON": MalformedJson,
    "MISSING_API_KEY": MissingApiKey,
    "MISSING_IDEMPOTENCY_KEY": MissingIdempotencyKey,
    "NOT_ACCEPTABLE": NotAcceptable,
    "NOT_FOUND": NotFound,
    "NOT_RETRYABLE": NotRetryable,
    "PAYLOAD_TOO_LARGE": PayloadTooLarge,
    "RATE_LIMITED": RateLimited,
    "UNAVAILABLE": Unavailable,
    "UNSUPPORTED_MEDIA_TYPE": UnsupportedMediaType,
    "VALIDATION_ERROR": ValidationError,
}
