"""Notes for each problem's page: when it happens, whether to retry, and where to read more. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sandbox.domain.idempotency_key import MAX_KEY_LENGTH


@dataclass(frozen=True, slots=True)
class Note:
    """The explanation of one problem code."""

    when: tuple[str, ...]
    """The situations in which the API responds with it."""
    retry: str
    """Whether the same request can succeed later."""
    guide: str = "errors"
    """The guide's page about it, by its path relative to /docs/guide/."""


_NEVER: Final = "No. The same request fails again; correct it first."
_NEW_KEY: Final = (
    "Not with the same idempotency key: the refusal is stored under it for 24 hours. Once the cause is gone, send a new key."
)
_SAME_KEY: Final = "Yes, with the same idempotency key. If the first request took effect after all, you get its response."

NOTES: Final[Mapping[str, Note]] = {
    "VALIDATION_ERROR": Note(
        (
            "A field of the body is missing, unknown, of the wrong type or outside its limits. `errors` names each field.",
            "A query parameter or an id in the path is not valid.",
            "The request names a scenario in `X-Sandbox-Scenario` that does not exist.",
        ),
        _NEVER,
    ),
    "MALFORMED_JSON": Note(
        ("The body is empty, cut off, not UTF-8, or followed by something else.", "A string contains an unescaped line break."),
        _NEVER,
    ),
    "MISSING_IDEMPOTENCY_KEY": Note(
        ("A request that creates or changes something does not have the header.",),
        "Yes, with the header.",
        "idempotency",
    ),
    "INVALID_IDEMPOTENCY_KEY": Note(
        (f"The header is empty, longer than {MAX_KEY_LENGTH} characters, or has a character that is not printable ASCII.",),
        "Yes, with another key.",
        "idempotency",
    ),
    "MISSING_API_KEY": Note(
        (
            "The request has neither `X-API-KEY` nor `Authorization: Bearer`.",
            "An operation of the operator, such as creating a merchant, has no `X-ADMIN-KEY`.",
        ),
        "Yes, with a key.",
    ),
    "INVALID_API_KEY": Note(
        (
            "The key is mistyped, revoked, or of another sandbox. An ephemeral sandbox has new keys after each start.",
            "The key belongs to a merchant that was deleted.",
            "One of the well-known development keys is used on a host other than loopback.",
        ),
        "No. Check which key your code reads, and from where: `psp up` prints the valid ones.",
    ),
    "INVALID_SIGNATURE": Note(
        (
            "A bank's callback (IPN) is signed with another secret than the merchant's IPN secret.",
            "The callback's body changed after it was signed, for example because it was parsed and written again.",
            "`webhook-timestamp` is more than 5 minutes away from the host's time, or a header is missing.",
        ),
        "Yes, signed again. `psp ipn send` sends a correct callback to compare with.",
        "webhooks",
    ),
    "FORBIDDEN": Note(
        (
            "The key has the role `member`, and the operation needs `admin`: to approve or reject payouts, to create keys, to "
            "change settings.",
        ),
        "Yes, with an admin key.",
    ),
    "NOT_FOUND": Note(
        (
            "The path is mistyped.",
            "The id does not exist, or it belongs to another merchant. A key sees only its own merchant's objects.",
            "The object was removed by a reset, or by restoring a snapshot.",
        ),
        "Only if the object can still appear. A 404 is stored under its idempotency key, so send a new key then.",
    ),
    "METHOD_NOT_ALLOWED": Note(
        ("The path exists, but not with this method. The Allow header lists the methods that it has.",), _NEVER
    ),
    "NOT_ACCEPTABLE": Note(
        ("The Accept header excludes JSON, such as `Accept: text/xml`.",), "Yes, with another Accept header.", "errors"
    ),
    "REQUEST_TIMEOUT": Note(
        (
            "The client connected, sent a part of its request, and then paused for too long.",
            "`Content-Length` is larger than the body, so the rest never comes.",
        ),
        _SAME_KEY,
    ),
    "DUPLICATE_REFERENCE": Note(
        (
            "Another payout of the merchant already has this `merchant_reference`, even if that payout failed.",
            "Another user of the merchant already has this `external_id` or `vendor_user_id`.",
            "A bank's callback gives a payout the `psp_reference` of another one.",
        ),
        "No. If you retried a request whose response was lost, send its original idempotency key: you get its response.",
        "idempotency",
    ),
    "INVALID_STATE": Note(
        (
            "The payout is in a state that does not allow the change, such as cancelling one that has succeeded. `detail` "
            "lists the states that it can move to.",
            "The merchant has the maximum number of faults, scenarios or snapshots.",
            "Something else has to end first, such as a receiver test.",
        ),
        "Only after the state has changed, and with a new idempotency key.",
        "scenarios",
    ),
    "IDEMPOTENCY_KEY_IN_FLIGHT": Note(
        ("Your code sent the same request twice at the same time, and the first one has not been answered yet.",),
        "Yes, with the same idempotency key, after a short pause. You get the first request's response.",
        "idempotency",
    ),
    "ALREADY_RECONCILED": Note(
        ("A sale in the request was approved or declined earlier. None of the request's sales was reconciled.",),
        "Yes, without that sale, and with a new idempotency key.",
        "sales",
    ),
    "NOT_RETRYABLE": Note(
        ("A bulk credit has no failed rows.", "The bulk credit is still running. Wait until it is done."),
        "Only once the bulk credit is done and has failed rows.",
        "bulk-credit",
    ),
    "PAYLOAD_TOO_LARGE": Note(
        ("The body is larger than the operation allows. `detail` says how many bytes it allows.",),
        "Yes, in several smaller requests.",
    ),
    "UNSUPPORTED_MEDIA_TYPE": Note(
        (
            "The request has a body and another Content-Type than `application/json` (for a file: `multipart/form-data`).",
            "The body is compressed.",
        ),
        "Yes, with the right header.",
    ),
    "INSUFFICIENT_BALANCE": Note(
        (
            "The merchant's available balance is lower than the amount. Payouts that are not final lock their amounts.",
            "The user's wallet has less available than the amount. `detail` says which of the two is too low.",
        ),
        _NEW_KEY,
        "money-and-ledger",
    ),
    "IDEMPOTENCY_KEY_REUSED": Note(
        (
            "The key was sent before with another method, path, query or body.",
            "Your code builds a new body for a retry, and something in it differs, such as a timestamp.",
        ),
        "With the same key, only as exactly the same request. Otherwise, send a new key.",
        "idempotency",
    ),
    "RATE_LIMITED": Note(
        (
            "The merchant has a `rate_limit`, and made more calls than that in a minute.",
            "The vendor feed allows 5 calls per minute and key.",
            "Too many streams, listeners or receiver tests are open at the same time.",
            "The merchant's requests arrive faster than they can be executed, and its own queue is full.",
            "A fault of the kind `rate_limit` hit the request.",
        ),
        "Yes, after the seconds in the Retry-After header, with the same idempotency key.",
    ),
    "HEADERS_TOO_LARGE": Note(
        ("The request line and the headers have more than 64 KB, for example because of cookies.",), _NEVER
    ),
    "INTERNAL_ERROR": Note(("The sandbox has a bug. Its log has the cause, under the `request_id`.",), _SAME_KEY),
    "UNAVAILABLE": Note(
        (
            "PostgreSQL or Redis does not answer. `/health/ready` says which.",
            "The sandbox is starting or stopping.",
            "Many requests kept changing the same data at the same time.",
            "A fault of the kind `error` hit the request. The journal shows which.",
        ),
        _SAME_KEY,
        "faults",
    ),
}
