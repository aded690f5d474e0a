"""A double-entry ledger in memory. Pure: takes balances and transfers, returns results.

A transfer has one debit account and one credit account, so it always balances. An account's balance is its credits less its
debits. `AVAILABLE` and `LOCKED` must never be negative.

Each user's wallet is an account, `WALLET:{user_id}`. `USER_FUNDS` is the contra account of all wallets.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import msgspec

from sandbox.domain.money import ZERO

AVAILABLE: Final = "AVAILABLE"
LOCKED: Final = "LOCKED"
SETTLEMENT: Final = "SETTLEMENT"
FUNDING: Final = "FUNDING"
USER_FUNDS: Final = "USER_FUNDS"
WALLET: Final = "WALLET"
MERCHANT_ACCOUNTS: Final = (AVAILABLE, FUNDING, LOCKED, SETTLEMENT, USER_FUNDS)
NEVER_NEGATIVE: Final = frozenset({AVAILABLE, LOCKED})


@dataclass(frozen=True, slots=True)
class Movement:
    """A kind of transfer: the accounts it debits and credits, and its name in the history. `WALLET` means a user's wallet."""

    debit: str
    credit: str
    reason: str


TOP_UP: Final = Movement(FUNDING, AVAILABLE, "TOP_UP")
LOCK: Final = Movement(AVAILABLE, LOCKED, "PAYOUT_LOCK")
SETTLE: Final = Movement(LOCKED, SETTLEMENT, "PAYOUT_SETTLE")
RELEASE: Final = Movement(LOCKED, AVAILABLE, "PAYOUT_RELEASE")
RETURN: Final = Movement(SETTLEMENT, AVAILABLE, "PAYOUT_RETURN")
EARN: Final = Movement(USER_FUNDS, WALLET, "WALLET_EARN")
SPEND: Final = Movement(WALLET, USER_FUNDS, "WALLET_SPEND")
CREDIT: Final = Movement(USER_FUNDS, WALLET, "WALLET_CREDIT")
ADVANCE: Final = Movement(USER_FUNDS, WALLET, "WALLET_ADVANCE")
FINAL: Final = Movement(USER_FUNDS, WALLET, "WALLET_FINAL")
CLAW_BACK: Final = Movement(WALLET, USER_FUNDS, "WALLET_CLAWBACK")
PAY_OUT: Final = Movement(WALLET, USER_FUNDS, "WALLET_PAYOUT")
PAYOUT_REVERSAL: Final = Movement(USER_FUNDS, WALLET, "WALLET_GIVE_BACK")
WALLET_MOVEMENTS: Final = (EARN, SPEND, CREDIT, ADVANCE, FINAL, CLAW_BACK, PAY_OUT, PAYOUT_REVERSAL)
MOVEMENTS: Final = {m.reason: m for m in (TOP_UP, LOCK, SETTLE, RELEASE, RETURN, *WALLET_MOVEMENTS)}


def wallet_of(user_id: str) -> str:
    """Return the account of a user's wallet."""
    return f"{WALLET}:{user_id}"


class Transfer(msgspec.Struct, frozen=True):
    """A transfer to post."""

    id: str
    movement: Movement
    amount: Decimal
    payout_id: str | None
    description: str
    user_id: str | None = None
    """The owner of the wallet, if the movement has one."""

    @property
    def debit_account(self) -> str:
        """The account to debit."""
        return self._account(self.movement.debit)

    @property
    def credit_account(self) -> str:
        """The account to credit."""
        return self._account(self.movement.credit)

    def _account(self, account: str) -> str:
        if account != WALLET:
            return account
        if self.user_id is None:
            raise ValueError(f"a transfer for {self.movement.reason} needs a user")
        return wallet_of(self.user_id)


class Posted(msgspec.Struct, frozen=True):
    """An accepted transfer, with the balances of both accounts after it."""

    transfer: Transfer
    debit_balance_after: Decimal
    credit_balance_after: Decimal


@dataclass(frozen=True, slots=True)
class Refused:
    """A transfer that its debit account does not cover. Nothing was moved. `balance` is the account's balance."""

    transfer: Transfer
    account: str
    balance: Decimal


def post(balances: MutableMapping[str, Decimal], transfer: Transfer) -> Posted | Refused:
    """Post one transfer to `balances` (account → balance, changed in place), or refuse it and change nothing.

    Raises ValueError for an amount that is not positive: a bug in the caller.
    """
    if transfer.amount <= ZERO:
        raise ValueError(f"a transfer must have a positive amount, not {transfer.amount}")
    debit, credit = transfer.debit_account, transfer.credit_account
    remaining = balances[debit] - transfer.amount
    if remaining < ZERO and debit in NEVER_NEGATIVE:
        return Refused(transfer, debit, balances[debit])
    balances[debit] = remaining
    balances[credit] += transfer.amount
    return Posted(transfer, remaining, balances[credit])
