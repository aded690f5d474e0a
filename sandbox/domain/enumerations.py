"""The API's enumerations, one Literal each, shared by bodies, filters and the command line. Pure."""

from typing import Final, Literal, get_args

PayoutStatus = Literal[
    "REQUESTED", "PENDING", "PROCESSING", "RETRY", "ON_HOLD", "IN_REVIEW", "SUCCESS", "FAILED", "CANCELLED", "REJECTED",
    "RETURNED",
]  # fmt: skip
EventType = Literal[
    "payout.requested", "payout.created", "payout.processing", "payout.retrying", "payout.on_hold", "payout.in_review",
    "payout.succeeded", "payout.failed", "payout.cancelled", "payout.rejected", "payout.returned", "payout.reinitiated",
    "bulk_credit.completed",
]  # fmt: skip
EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)
EVENT_PATTERNS: Final = tuple(dict.fromkeys(f"{name.partition('.')[0]}.*" for name in EVENT_TYPES))
"""The patterns that stand for all types of one resource, such as `payout.*`."""
DestType = Literal["BANK", "WALLET"]
Account = Literal["AVAILABLE", "LOCKED"]
TransactionType = Literal["EARNED", "SPENT", "CREDITED", "ADVANCE", "FINAL", "PAYOUT", "PAID_OUT"]
RecordedType = Literal["EARNED", "SPENT"]
"""The transactions that a merchant may record; the sandbox creates the others."""
SaleStatus = Literal["PENDING", "APPROVED", "DECLINED"]
SalePaymentKind = Literal["ADVANCE", "FINAL"]
Verdict = Literal["APPROVED", "DECLINED"]
ItemStatus = Literal["PENDING", "SUCCEEDED", "FAILED", "INVALID"]
DeliveryStatus = Literal["PENDING", "SUCCEEDED", "FAILED", "PAUSED"]
ErrorClass = Literal[
    "DNS", "DNS_TIMEOUT", "BLOCKED_ADDRESS", "CONNECTION_REFUSED", "CONNECT_FAILED", "TLS", "TIMEOUT", "CONNECTION_CLOSED",
    "CONNECTION_RESET", "INVALID_RESPONSE", "REDIRECT", "HTTP_STATUS", "INVALID_URL", "INVALID_REQUEST", "FAULT", "SECRET",
    "INTERNAL",
]  # fmt: skip
"""Why a delivery attempt failed; `ERROR_CLASSES` explains them."""
ERROR_CLASSES: Final = (
    "Why the attempt failed; null if it succeeded. DNS: the name does not resolve. DNS_TIMEOUT: no name server "
    "responded. BLOCKED_ADDRESS: the address is private and not allowed, or a metadata service. CONNECTION_REFUSED, "
    "CONNECT_FAILED: no connection. TLS: the handshake failed, or the certificate is not valid. TIMEOUT: no complete response "
    "within 15 s. CONNECTION_CLOSED, CONNECTION_RESET: the connection ended before the response. INVALID_RESPONSE: not valid "
    "HTTP, or incomplete. REDIRECT: 3xx, which is never followed. HTTP_STATUS: another status outside 2xx. INVALID_URL, "
    "INVALID_REQUEST: no request is possible. FAULT: an injected fault prevented it. SECRET: the endpoint's secret cannot be "
    "decrypted. INTERNAL: an error of the sandbox."
)
"""For the API's documentation."""
NextReason = Literal[
    "FIRST", "SCHEDULE", "RETRY_AFTER", "FAULT", "RESENT", "EARLIER_EVENT", "CHANGED", "PAUSED", "SUCCEEDED", "EXHAUSTED",
    "FINAL_RESPONSE", "ENDPOINT_DELETED",
]  # fmt: skip
"""Why a delivery's next attempt is scheduled when it is, or why there is none."""
HoldReason = Literal[
    "IN_PROGRESS", "ENDPOINT_DISABLED", "CLOCK_FROZEN", "EARLIER_EVENT", "RATE_LIMIT", "LISTENER", "CAPACITY"
]  # fmt: skip
"""The things that a due delivery can wait for."""
EndpointStatus = Literal["ENABLED", "DISABLED"]
Signing = Literal["v1", "v1a", "stripe", "github", "safepay", "custom"]
SigningTime = Literal["host", "merchant"]
RetryProfile = Literal["standard", "fast", "server_errors"]
Role = Literal["admin", "member"]
DefaultScenario = Literal["SUCCESS", "PENDING", "FAILED"]
FaultTarget = Literal["api", "webhooks"]
FaultKind = Literal[
    "latency", "error", "rate_limit", "connection_reset", "slow_after_commit", "truncated_body", "drop", "duplicate", "delay",
    "reorder", "stale_timestamp", "wrong_key", "tampered_body",
]  # fmt: skip
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
RecoveryScope = Literal["failed", "all"]
FilterOperator = Literal["eq", "ne", "in", "gte", "lte", "prefix", "exists"]
HashAlgorithm = Literal["sha256", "sha512"]
SignatureEncoding = Literal["hex", "base64"]
KeyEncoding = Literal["text", "base64"]
TimestampFormat = Literal["unix", "rfc3339"]
