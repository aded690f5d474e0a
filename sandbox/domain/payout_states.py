"""A payout's state machine as one table: every legal change, its transfer and its event. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, get_args

from sandbox.domain.enumerations import EventType, PayoutStatus
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
    """A legal change of state: the transfer it posts, if any, and the event it emits."""

    movement: Movement | None
    event: EventType


def _table() -> dict[tuple[str | None, str], Change]:
    table: dict[tuple[str | None, str], Change] = {}

    def allow(sources: tuple[str | None, ...], targets: tuple[str, ...], movement: Movement | None) -> None:
        for source in sources:
            for target in targets:
                table[source, target] = Change(movement, EVENT_OF[target])

    allow((None,), (REQUESTED, PENDING), LOCK)
    allow((None,), (FAILED,), None)  # too little money, and the request asked for a payout that says so
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
"""(from, to) → the change. A new payout comes from `None`. Any other pair is INVALID_STATE."""

HOLDS_FUNDS: Final = frozenset(
    source for (source, _), change in TRANSITIONS.items() if source is not None and change.movement in (RELEASE, SETTLE)
)
"""The states in which the amount is in LOCKED, until a transition releases or settles it."""


def legal_from(status: str) -> tuple[str, ...]:
    """Return the states that a payout in `status` can move to, in the order of STATUSES."""
    return tuple(target for target in STATUSES if (status, target) in TRANSITIONS)


def next_states(status: str) -> str:
    """Return a sentence for users that names the states a payout in `status` can move to."""
    legal = legal_from(status)
    return f"From {status}, it can move to {either(legal)}." if legal else f"{status} is a final state."


def either(names: Sequence[str]) -> str:
    """Join at least one name as `A`, `A or B`, or `A, B or C`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
