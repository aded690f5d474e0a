"""Rewrites texts of the API for agents, who know tools and arguments, but no headers, paths or methods."""

import re
from typing import Final

from sandbox.domain.idempotency import NEEDS_NEW_KEY
from sandbox.domain.idempotency_key import KEY_RULE

FAULTS: Final = "If get_status shows a fault that you injected, this may be its effect."
_AGAIN: Final = f"Call the tool again, with the same `idempotency_key` if you gave one. {FAULTS}"
_ADVICE: Final = {
    "VALIDATION_ERROR": "Correct the arguments that `errors` names, and call the tool again.",
    "MALFORMED_JSON": "Correct the argument: text must be Unicode without half surrogate pairs.",
    "INVALID_IDEMPOTENCY_KEY": f"Use {KEY_RULE} as `idempotency_key`, or leave it out.",
    "MISSING_API_KEY": "Ask the user to configure a merchant's key for this server.",
    "INVALID_API_KEY": "Ask the user to check the configured key: it is mistyped, revoked, or belongs to another sandbox.",
    "FORBIDDEN": "The API key has the role `member`. Ask the user for a key with the role `admin`.",
    "NOT_FOUND": "Check the id: the tools that list things show ids. A key finds only what belongs to its merchant or world.",
    "DUPLICATE_REFERENCE": "Use another `merchant_reference`, or leave it out.",
    "INVALID_STATE": "`detail` says what is allowed in this state; get_payout lists the statuses that a payout can move to.",
    "IDEMPOTENCY_KEY_IN_FLIGHT": "Wait a moment, then call the tool again with the same `idempotency_key`.",
    "IDEMPOTENCY_KEY_REUSED": "Use another `idempotency_key` for another call, or leave it out.",
    "INSUFFICIENT_BALANCE": "Call top_up_balance, or pay a smaller amount.",
    "PAYLOAD_TOO_LARGE": "Send less in one call.",
    "RATE_LIMITED": f"Wait a few seconds, then call the tool again. {FAULTS}",
    "UNAVAILABLE": _AGAIN,
    "INTERNAL_ERROR": _AGAIN,
}
"""Code of the API's problem → what to do."""
_TOOLS: Final = {
    "/sandbox/v1/faults": "get_status",
    "/sandbox/v1/snapshots": "list_snapshots",
    "/sandbox/v1/scenarios": "list_scenarios",
    "/api/v1/payouts": "list_payouts",
    "/api/v1/webhook-endpoints": "list_webhook_endpoints",
    "/api/v1/webhook-deliveries": "list_deliveries",
}
"""Path of the API → the tool that shows the same."""
_OPERATION: Final = re.compile(r"\b(?:GET|POST|PUT|PATCH|DELETE) (?:https?://[^\s/]+)?(/[\w/{}.-]*\w)")
_LOST: Final = re.compile(r"\b(?:GET|POST|PUT|PATCH|DELETE) https?://\S+ got no answer")
_NAMES: Final = {"X-Sandbox-Scenario": "scenario", "X-IDEMPOTENCY-KEY": "idempotency_key", "count": "hits"}


def advice(code: str) -> str:
    """Return what to do after a problem of the API."""
    return _ADVICE.get(code, f"Read `detail`. {FAULTS}")


def in_tool_terms(text: str) -> str:
    """Return a text of the API without its headers and paths."""
    text = text.replace(NEEDS_NEW_KEY, "").rstrip()
    text = _LOST.sub("The sandbox did not answer", text)
    text = _OPERATION.sub(lambda found: _TOOLS.get(found[1], "the guide"), text)
    return text.replace("X-Sandbox-Scenario", "`scenario`").replace("X-IDEMPOTENCY-KEY", "`idempotency_key`")


def argument(field: str) -> str:
    """Return the tool argument that corresponds to a field of the API."""
    return _NAMES.get(field, field.removeprefix("match."))
