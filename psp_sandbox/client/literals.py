"""Names for the values that several fields have."""

# Generated from openapi/openapi.json by openapi/generate_client.py. Do not edit.

from typing import Literal

ErrorClass = Literal[
    "BLOCKED_ADDRESS",
    "CONNECTION_CLOSED",
    "CONNECTION_REFUSED",
    "CONNECTION_RESET",
    "CONNECT_FAILED",
    "DNS",
    "DNS_TIMEOUT",
    "FAULT",
    "HTTP_STATUS",
    "INTERNAL",
    "INVALID_REQUEST",
    "INVALID_RESPONSE",
    "INVALID_URL",
    "REDIRECT",
    "SECRET",
    "TIMEOUT",
    "TLS",
]
EventPattern = Literal[
    "*",
    "bulk_credit.*",
    "bulk_credit.completed",
    "payout.*",
    "payout.cancelled",
    "payout.created",
    "payout.failed",
    "payout.in_review",
    "payout.on_hold",
    "payout.processing",
    "payout.reinitiated",
    "payout.rejected",
    "payout.requested",
    "payout.retrying",
    "payout.returned",
    "payout.succeeded",
]
EventType = Literal[
    "bulk_credit.completed",
    "payout.cancelled",
    "payout.created",
    "payout.failed",
    "payout.in_review",
    "payout.on_hold",
    "payout.processing",
    "payout.reinitiated",
    "payout.rejected",
    "payout.requested",
    "payout.retrying",
    "payout.returned",
    "payout.succeeded",
]
PayoutStatus = Literal[
    "CANCELLED",
    "FAILED",
    "IN_REVIEW",
    "ON_HOLD",
    "PENDING",
    "PROCESSING",
    "REJECTED",
    "REQUESTED",
    "RETRY",
    "RETURNED",
    "SUCCESS",
]
SigningScheme = Literal["custom", "github", "stripe", "v1", "v1a"]
WalletCode = Literal["EASYPAISA", "JAZZCASH", "NAYAPAY", "SADAPAY"]
