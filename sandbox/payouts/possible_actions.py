"""The requests that can change a payout in a given state, from the same tables that accept or refuse them. Pure."""

from typing import Final, Literal

import msgspec

from sandbox.domain import payout_states as states
from sandbox.domain.enumerations import PayoutStatus
from sandbox.domain.failure_codes import FAILURES, TAKES_FAILURE_CODE, default_failure_code
from sandbox.domain.ledger import LOCK, RELEASE, RETURN, SETTLE, Movement
from sandbox.domain.payout_commands import DECISIONS, TRANSITIONS_BY_ACTION, is_decision

ActionOperation = Literal["approve_payout", "reject_payout", "cancel_payout", "reinitiate_payout", "simulate_payout"]


class ActionBody(msgspec.Struct, omit_defaults=True):
    """A request's body: only a simulation has a `status`. A `failure_code` can be added."""

    status: PayoutStatus | None = None


class PayoutAction(msgspec.Struct, kw_only=True):
    """A request that can change a payout now.

    `operation` is the operation's id in this document, `body` its body, and `access` the role that its key needs (an admin key
    can do everything). `failure_codes` are the known codes that `body.failure_code` may have: an unknown code of your own is
    accepted too. The list is empty if the body takes no code. `default_failure_code` is the payout's code if the body has none.
    """

    operation: ActionOperation
    body: ActionBody
    to: PayoutStatus
    failure_codes: list[str]
    default_failure_code: str | None
    access: Literal["member", "admin"]
    description: str


class PayoutActions(msgspec.Struct):
    """A payout's status, and the requests that can change it now: the merchant's own first, then simulations."""

    payout_id: str
    status: PayoutStatus
    actions: list[PayoutAction]


def legal_actions(status: str) -> list[PayoutAction]:
    """Return the requests that can change a payout in `status`."""
    own = [
        _action(f"{action}_payout", ActionBody(), status, targets[status], needs_admin=action in DECISIONS)
        for action, targets in TRANSITIONS_BY_ACTION.items()
        if status in targets
    ]
    return own + [
        _action("simulate_payout", ActionBody(target), status, target, needs_admin=is_decision(status, target))  # type: ignore[arg-type]  # a status
        for target in states.legal_from(status)
    ]


_MONEY: Final[dict[Movement | None, str]] = {
    LOCK: "Locks the amount.",
    RELEASE: "Makes the locked amount available again.",
    SETTLE: "Pays the locked amount out.",
    RETURN: "Adds the amount to the available balance again.",
    None: "Moves no money.",
}
"""The effect of a change of state on the merchant's balance."""


def _action(operation: str, body: ActionBody, source: str, target: str, *, needs_admin: bool) -> PayoutAction:
    takes_code = body.status in TAKES_FAILURE_CODE
    return PayoutAction(
        operation=operation,  # type: ignore[arg-type]  # a key of TRANSITIONS_BY_ACTION
        body=body,
        to=target,  # type: ignore[arg-type]  # a status
        failure_codes=list(FAILURES) if takes_code else [],
        default_failure_code=default_failure_code(source, target),
        access="admin" if needs_admin else "member",
        description=f"{source} → {target}. {_MONEY[states.TRANSITIONS[source, target].movement]}",
    )
