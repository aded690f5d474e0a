"""The facts, and what follows from them. Pure: the same facts in, the same state out, in whatever order webhooks arrived."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, NamedTuple

UNPAID: Final = frozenset({"FAILED", "CANCELLED", "REJECTED", "RETURNED", "REFUSED"})


class Fact(NamedTuple):
    """Something that happened. Facts are only ever added."""

    kind: str
    """`earned`, `requested`, `refused` or `heard` (from the PSP)."""
    driver: str
    data: dict[str, Any]
    """`earned`: amount; `requested`: reference, amount, account_number; `refused`: reference; `heard`: the payout."""


@dataclass(slots=True)
class Withdrawal:
    """A payout as the facts have it."""

    reference: str
    amount: Decimal
    account_number: str
    status: str = "REQUESTED"
    version: int = 0
    """The version of the newest state that the PSP has told; 0 if it has told nothing."""


@dataclass(slots=True)
class Driver:
    """A driver as the facts have it."""

    earned: Decimal = Decimal(0)
    withdrawals: dict[str, Withdrawal] = field(default_factory=dict)

    @property
    def balance(self) -> Decimal:
        """What the driver can withdraw: what was earned, without what was paid or may still be."""
        return self.earned - sum((one.amount for one in self.withdrawals.values() if one.status not in UNPAID), Decimal(0))


def state_of(facts: Iterable[Fact]) -> dict[str, Driver]:
    """Return all drivers by name."""
    drivers: dict[str, Driver] = {}
    for fact in facts:
        _apply(drivers.setdefault(fact.driver, Driver()), fact)
    return drivers


def _apply(driver: Driver, fact: Fact) -> None:
    data = fact.data
    if fact.kind == "earned":
        driver.earned += Decimal(data["amount"])
    elif fact.kind == "requested":
        driver.withdrawals[data["reference"]] = Withdrawal(data["reference"], Decimal(data["amount"]), data["account_number"])
    elif fact.kind == "refused":
        withdrawal = driver.withdrawals[data["reference"]]
        withdrawal.status = withdrawal.status if withdrawal.version else "REFUSED"
    else:
        withdrawal = driver.withdrawals[data["merchant_reference"]]
        # Late and repeated facts are facts too; they only say nothing new.
        if data["version"] > withdrawal.version:
            withdrawal.status, withdrawal.version = data["status"], data["version"]
