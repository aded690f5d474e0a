"""Why a payout failed: the codes of banks, what they mean, and which states take one. Pure."""

from typing import Final

from sandbox.domain.payout_states import FAILED, IN_REVIEW, REJECTED, RETURNED

FAILURES: Final = {
    "BANK_REJECTED": "The bank rejected the payout.",
    "ACCOUNT_NOT_FOUND": "The account does not exist.",
    "ACCOUNT_CLOSED": "The account is closed.",
    "ACCOUNT_BLOCKED": "The account is blocked.",
    "NAME_MISMATCH": "The account title does not match.",
    "LIMIT_EXCEEDED": "The payout exceeds the account's limit.",
    "BANK_UNAVAILABLE": "The bank could not be reached.",
    "TIMEOUT": "The bank did not respond in time.",
    "RETURNED_BY_BANK": "The bank returned the payout.",
    "REVIEW_REJECTED": "The payout was rejected in review.",
    "APPROVAL_EXPIRED": "Nobody approved the payout in time.",
}
"""failure_code → the default failure_reason."""
DEFAULT_FAILURE_CODES: Final = {FAILED: "BANK_REJECTED", RETURNED: "RETURNED_BY_BANK"}
"""State → its failure_code, if the change to it has none. A payout in any of these states has a failure_code."""
TAKES_FAILURE_CODE: Final = (FAILED, RETURNED, REJECTED)
"""The states for which a request may give a failure_code."""


def default_failure_code(source: str, target: str) -> str | None:
    """Return the failure_code of a request's change that gives none."""
    # Failing a payout in review rejects it, whatever the request is.
    return "REVIEW_REJECTED" if (source, target) == (IN_REVIEW, FAILED) else DEFAULT_FAILURE_CODES.get(target)
