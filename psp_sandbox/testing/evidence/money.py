"""How much money a finding is about."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from psp_sandbox.testing.explore.results import Difference

_ZERO: Final = Decimal(0)
_CENT: Final = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Money:
    """Sums of what is wrong, never negative."""

    overpaid: Decimal = _ZERO
    """The provider paid more than the books have spent: it is paid or credited twice."""
    unpaid: Decimal = _ZERO
    """The books have spent more than the provider paid: somebody waits for it."""
    misbooked: Decimal = _ZERO
    """Nothing was paid wrongly, but the books have another status or amount."""

    def __add__(self, other: "Money") -> "Money":
        return Money(self.overpaid + other.overpaid, self.unpaid + other.unpaid, self.misbooked + other.misbooked)

    @property
    def total(self) -> Decimal:
        """All of it."""
        return self.overpaid + self.unpaid + self.misbooked


def money_of(differences: Iterable[Difference]) -> Money:
    """Return the sums of several differences."""
    return sum(map(_money, differences), Money())


def _money(one: Difference) -> Money:
    paid = Decimal(one.overpaid)
    if paid:
        return Money(overpaid=max(paid, _ZERO), unpaid=max(-paid, _ZERO))
    books, psp = (None if amount is None else Decimal(amount) for amount in (one.books_amount, one.psp_amount))
    if books is None or psp is None:
        return Money(misbooked=books or psp or _ZERO)
    return Money(misbooked=abs(books - psp) or psp)


def shown(amount: Decimal, currency: str) -> str:
    """Return an amount as text: `PKR 1,250.50`."""
    return f"{currency} {amount.quantize(_CENT):,}"


def described(money: Money, currency: str) -> str:
    """Return what is wrong as one phrase; "" if nothing is."""
    parts = [
        (money.overpaid, "paid or credited too much"),
        (money.unpaid, "taken from balances and never paid"),
        (money.misbooked, "booked wrongly"),
    ]
    return ", ".join(f"{shown(amount, currency)} {what}" for amount, what in parts if amount)
