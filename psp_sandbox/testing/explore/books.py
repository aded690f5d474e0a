"""The application's books and the provider's: how both are read, and where they differ."""

import csv
import io
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.testing.explore.results import Difference

if TYPE_CHECKING:
    from psp_sandbox.client import Client

UNPAID: Final = frozenset({"FAILED", "CANCELLED", "REJECTED", "RETURNED"})
"""The statuses in which a payout's money is back with the merchant."""
_MAX_ROWS: Final = 10_000
_SECONDS: Final = 60.0
_PAGE: Final = 100
_FIELDS: Final = ("reference", "status", "amount", "spent")

Names = Mapping[str, "str | Sequence[str] | None"]
"""The application's name of a status → the provider's, or several, or None for a payout that the provider does not have."""


class BooksError(Exception):
    """The application's books could not be read. The message says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """A payout in the application's books. `statuses` are the provider's that its status stands for; none: it has no payout."""

    reference: str
    status: str
    statuses: frozenset[str]
    amount: Decimal
    spent: Decimal
    """What has left the application's books for it, net of what came back."""


@dataclass(frozen=True, slots=True)
class Paid:
    """A payout as the provider has it."""

    id: str
    reference: str
    status: str
    amount: Decimal

    @property
    def spent(self) -> Decimal:
        """What is paid or on its way."""
        return Decimal(0) if self.status in UNPAID else self.amount


def read_rows(value: Any, names: Names) -> list[Row]:
    """Return the rows of a fixture's value: tuples (reference, status, amount), with `spent` if there is a fourth, or mappings.

    A function is called first. Raises BooksError.
    """
    found = value() if callable(value) else value
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
        raise BooksError(f"The books must be rows of (reference, status, amount), not {found!r}.")
    rows = list(islice(found, _MAX_ROWS + 1))
    if len(rows) > _MAX_ROWS:
        raise BooksError(f"The books have more than {_MAX_ROWS} rows.")
    return [_row(one, names) for one in rows]


def _row(value: Any, names: Names) -> Row:
    fields: Any = [value.get(name) for name in _FIELDS] if isinstance(value, Mapping) else value
    try:
        reference, status, amount, *rest = fields
        spent = rest[0] if rest else None
        if isinstance(amount, float) or isinstance(spent, float):
            raise BooksError(f"{value!r}: an amount is money, and a float is not exact. Use text or Decimal.")
        money = Decimal(amount)
        statuses = statuses_of(str(status), names)
        due = money if statuses - UNPAID else Decimal(0)
        net = due if spent is None or spent == "" else Decimal(spent)
    except (TypeError, ValueError, InvalidOperation):
        raise BooksError(f"A row of the books is (reference, status, amount) or (…, spent), not {value!r}.") from None
    return Row(str(reference), str(status), statuses, money, net)


def statuses_of(status: str, names: Names) -> frozenset[str]:
    """Return the provider's statuses that an application's status stands for."""
    meant = names.get(status, status)
    if meant is None:
        return frozenset()
    return frozenset(one.upper() for one in ([meant] if isinstance(meant, str) else meant))


def rows_of_command(command: str, env: Mapping[str, str], names: Names) -> list[Row]:
    """Return the rows that a command prints, as JSON lines or CSV with a header line. Raises BooksError."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own command
            shlex.split(command), env={**os.environ, **env}, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise BooksError(f"{command}: {error}") from error
    if done.returncode:
        raise BooksError(f"{command} ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return read_rows(_parsed(done.stdout), names)


def rows_of_url(url: str, names: Names) -> list[Row]:
    """Return the rows that a URL responds with, as a JSON array, JSON lines or CSV. Raises BooksError."""
    import httpx

    try:
        response = httpx.get(url, timeout=_SECONDS, trust_env=False).raise_for_status()
    except httpx.HTTPError as error:
        raise BooksError(f"{url}: {error}") from error
    return read_rows(_parsed(response.text), names)


def _parsed(text: str) -> list[Any]:
    stripped = text.strip()
    try:
        if stripped.startswith("["):
            found: list[Any] = json.loads(stripped)
            return found
        if not stripped or stripped.startswith("{"):
            return [json.loads(line) for line in stripped.splitlines() if line.strip()]
    except ValueError as error:
        raise BooksError(f"The books are not JSON lines: {error}") from error
    return list(csv.DictReader(io.StringIO(stripped)))


def provider_rows(client: "Client") -> list[Paid]:
    """Return the payouts that the provider has, oldest first. Raises PspError, or BooksError if there are too many."""
    found = list(islice(client.payouts.list(limit=_PAGE), _MAX_ROWS + 1))
    if len(found) > _MAX_ROWS:
        raise BooksError(f"The provider has more than {_MAX_ROWS} payouts.")
    return [Paid(one.id, one.merchant_reference, one.status, one.amount) for one in reversed(found)]


def differences(books: Sequence[Row], provider: Sequence[Paid], is_foreign: Callable[[Paid], bool]) -> tuple[Difference, ...]:
    """Return the references on which the books differ.

    `is_foreign` says whether a payout that only the provider has was made by the test itself, not by the application.
    """
    rows: dict[str, list[Row]] = {}
    for row in books:
        rows.setdefault(row.reference, []).append(row)
    paid = {one.reference: one for one in provider}
    found = []
    for reference in dict.fromkeys([*paid, *rows]):
        mine, theirs = rows.get(reference, []), paid.get(reference)
        if not _agree(mine, theirs) and (mine or theirs is None or not is_foreign(theirs)):
            found.append(_difference(reference, mine, theirs))
    return tuple(found)


def _agree(mine: Sequence[Row], theirs: Paid | None) -> bool:
    if not mine:
        return theirs is None
    spent = sum((row.spent for row in mine), Decimal(0))
    if theirs is None:
        return all(not row.statuses for row in mine) and spent == 0
    amount = sum((row.amount for row in mine), Decimal(0))
    is_same = theirs.status in mine[-1].statuses and amount == theirs.amount
    return is_same and spent == theirs.spent


def _difference(reference: str, mine: Sequence[Row], theirs: Paid | None) -> Difference:
    spent = sum((row.spent for row in mine), Decimal(0))
    paid = Decimal(0) if theirs is None else theirs.spent
    return Difference(
        reference=reference,
        books_status=mine[-1].status if mine else None,
        books_amount=f"{sum((row.amount for row in mine), Decimal(0)):.2f}" if mine else None,
        psp_status=None if theirs is None else theirs.status,
        psp_amount=None if theirs is None else f"{theirs.amount:.2f}",
        overpaid=f"{paid - spent:.2f}",
        books_spent=f"{spent:.2f}" if mine else None,
        psp_spent=None if theirs is None else f"{paid:.2f}",
    )
