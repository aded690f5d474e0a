"""Double entry, decided in memory. Pure: balances and transfers in, results out.

A transfer names one account that it debits and one that it credits, so it cannot fail to balance. An account's
balance is what was credited less what was debited; `AVAILABLE` and `LOCKED` may never be negative.
"""

from collections.abc import Iterable, MutableMapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from sandbox.money import ZERO

AVAILABLE: Final = "AVAILABLE"
LOCKED: Final = "LOCKED"
SETTLEMENT: Final = "SETTLEMENT"
FUNDING: Final = "FUNDING"
MERCHANT_ACCOUNTS: Final = (AVAILABLE, FUNDING, LOCKED, SETTLEMENT)
NEVER_NEGATIVE: Final = frozenset({AVAILABLE, LOCKED})


@dataclass(frozen=True, slots=True)
class Movement:
    """Which accounts a kind of transfer debits and credits, and its name in the history."""

    debit: str
    credit: str
    reason: str


TOP_UP: Final = Movement(FUNDING, AVAILABLE, "TOP_UP")
LOCK: Final = Movement(AVAILABLE, LOCKED, "PAYOUT_LOCK")
SETTLE: Final = Movement(LOCKED, SETTLEMENT, "PAYOUT_SETTLE")
RELEASE: Final = Movement(LOCKED, AVAILABLE, "PAYOUT_RELEASE")
RETURN: Final = Movement(SETTLEMENT, AVAILABLE, "PAYOUT_RETURN")
MOVEMENTS: Final = {movement.reason: movement for movement in (TOP_UP, LOCK, SETTLE, RELEASE, RETURN)}


@dataclass(frozen=True, slots=True)
class Transfer:
    """A movement of money that is asked for."""

    id: str
    movement: Movement
    amount: Decimal
    payout_id: str | None
    description: str


@dataclass(frozen=True, slots=True)
class Posted:
    """A transfer that was accepted, with the balances of both accounts after it."""

    transfer: Transfer
    debit_balance_after: Decimal
    credit_balance_after: Decimal


@dataclass(frozen=True, slots=True)
class Refused:
    """A transfer that its account could not cover; it moved nothing."""

    transfer: Transfer
    account: str
    balance: Decimal


def post(balances: MutableMapping[str, Decimal], transfer: Transfer) -> Posted | Refused:
    """Post one transfer to `balances` (account → balance, changed in place), or refuse it and change nothing.

    Raises ValueError for an amount that is not positive, which no caller may ask for.
    """
    if transfer.amount <= ZERO:
        raise ValueError(f"a transfer of {transfer.amount} moves nothing")
    debit, credit = transfer.movement.debit, transfer.movement.credit
    left = balances[debit] - transfer.amount
    if left < ZERO and debit in NEVER_NEGATIVE:
        return Refused(transfer, debit, balances[debit])
    balances[debit] = left
    balances[credit] += transfer.amount
    return Posted(transfer, left, balances[credit])


def apply(balances: MutableMapping[str, Decimal], transfers: Iterable[Transfer]) -> list[Posted | Refused]:
    """Post transfers in the order they were asked for; one that lacks funds fails alone, later ones may still pass."""
    return [post(balances, transfer) for transfer in transfers]
