"""The life of a payout as one table: every legal change, its money and its event. Pure."""

from dataclasses import dataclass
from typing import Final, get_args

from sandbox.domain.choices import EventType, PayoutStatus
from sandbox.domain.ledger import LOCK, RELEASE, RETURN, SETTLE, Movement

STATUSES: Final[tuple[str, ...]] = get_args(PayoutStatus)
REQUESTED, PENDING, PROCESSING, RETRY, ON_HOLD, IN_REVIEW, SUCCESS, FAILED, CANCELLED, REJECTED, RETURNED = STATUSES

EVENT_OF: Final[dict[str, EventType]] = {
    REQUESTED: "payout.requested",
    PENDING: "payout.created",
    PROCESSING: "payout.processing",
    RETRY: "payout.retrying",
    ON_HOLD: "payout.on_hold",
    IN_REVIEW: "payout.in_review",
    SUCCESS: "payout.succeeded",
    FAILED: "payout.failed",
    CANCELLED: "payout.cancelled",
    REJECTED: "payout.rejected",
    RETURNED: "payout.returned",
}
REINITIATED: Final[EventType] = "payout.reinitiated"


@dataclass(frozen=True, slots=True)
class Change:
    """A legal change of state: what it moves and which event tells of it."""

    movement: Movement | None
    event: EventType


def _table() -> dict[tuple[str | None, str], Change]:
    table: dict[tuple[str | None, str], Change] = {}

    def allow(sources: tuple[str | None, ...], targets: tuple[str, ...], movement: Movement | None) -> None:
        for source in sources:
            for target in targets:
                table[source, target] = Change(movement, EVENT_OF[target])

    allow((None,), (REQUESTED, PENDING), LOCK)
    allow((REQUESTED,), (PENDING,), None)
    allow((REQUESTED,), (REJECTED, CANCELLED), RELEASE)
    allow((PENDING, RETRY, ON_HOLD, IN_REVIEW), (PROCESSING,), None)
    allow((PROCESSING,), (RETRY, ON_HOLD, IN_REVIEW), None)
    allow((PENDING, PROCESSING, RETRY, ON_HOLD), (SUCCESS,), SETTLE)
    allow((PENDING, PROCESSING, RETRY, ON_HOLD, IN_REVIEW), (FAILED,), RELEASE)
    allow((PENDING, ON_HOLD, IN_REVIEW), (CANCELLED,), RELEASE)
    allow((SUCCESS,), (RETURNED,), RETURN)
    table[FAILED, PENDING] = Change(LOCK, REINITIATED)
    return table


TRANSITIONS: Final = _table()
"""(from, to) → what belongs to it; `None` is before the payout exists. What is not here is INVALID_STATE."""

HOLDS_FUNDS: Final = frozenset(
    source for (source, _), change in TRANSITIONS.items() if source is not None and change.movement in (RELEASE, SETTLE)
)
"""In these the amount sits in LOCKED, until a transition releases or settles it."""


def legal_from(status: str) -> tuple[str, ...]:
    """The states that a payout in `status` can go to, in the table's order."""
    return tuple(target for target in STATUSES if (status, target) in TRANSITIONS)


FAILURES: Final = {
    "BANK_REJECTED": "The bank refused the payout.",
    "ACCOUNT_NOT_FOUND": "The bank does not know this account.",
    "ACCOUNT_CLOSED": "The account is closed.",
    "ACCOUNT_BLOCKED": "The account is blocked.",
    "NAME_MISMATCH": "The account's title does not match.",
    "LIMIT_EXCEEDED": "The account's limit is exceeded.",
    "BANK_UNAVAILABLE": "The bank could not be reached.",
    "TIMEOUT": "The bank did not answer in time.",
    "RETURNED_BY_BANK": "The bank sent the money back.",
    "REVIEW_REJECTED": "The payout was rejected in review.",
    "APPROVAL_EXPIRED": "Nobody approved the payout in time.",
}
"""failure_code → the failure_reason that goes with it when no other is given."""
