"""The verdict on a run: do the books agree, and did the suite pass?"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from psp_sandbox.testing.explore.books import Paid
from psp_sandbox.testing.explore.points import Point
from psp_sandbox.testing.explore.results import At, Difference, Verdict

IN_TOTAL = "(in total)"
"""The reference of a difference that concerns all payouts together."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known at rest."""

    failure: str | None
    """Why the test failed, in one line; None if it passed."""
    missed: str | None
    """Why what was to happen at the points did not happen; None if it did."""
    differences: tuple[Difference, ...]
    unsettled: tuple[str, ...]
    paid: Decimal
    """The money that the provider has paid for good."""
    has_books: bool
    problem: str | None = None
    """Why the world or the books could not be read."""


def paid_in(payouts: Sequence[Paid]) -> Decimal:
    """Return the money of all successful payouts."""
    return sum((one.amount for one in payouts if one.status == "SUCCESS"), Decimal(0))


def judge(evidence: Evidence, baseline: Evidence | None) -> tuple[Verdict, str | None]:
    """Return the verdict and its reason. Without a `baseline`, the run itself is the baseline."""
    if evidence.problem is not None:
        return Verdict.UNSETTLED, evidence.problem
    if evidence.missed is not None:
        return Verdict.NOT_REACHED, evidence.missed
    if evidence.differences:
        return Verdict.WRONG, _sentence(evidence.differences)
    new = [one for one in evidence.unsettled if baseline is None or one not in baseline.unsettled]
    if new:
        more = f" And {len(new) - 1} more." if len(new) > 1 else ""
        return Verdict.UNSETTLED, new[0] + more
    if evidence.failure is not None:
        return Verdict.REFUSED, f"The test failed, and nothing is wrong with the money: {evidence.failure}"
    return Verdict.RIGHT, None


def total_difference(evidence: Evidence, baseline: Evidence | None, points: Sequence[Point]) -> tuple[Difference, ...]:
    """Return the difference to what was paid without the fault, if there may be none.

    With books, only a payment beyond that counts: the application has booked the same debt twice. A test that failed may have
    ended before it paid. After an operator has acted, other money has moved.
    """
    if baseline is None or any(point.at is At.STATUS for point in points):
        return ()
    more = evidence.paid - baseline.paid
    if more == 0 or (more < 0 and (evidence.has_books or evidence.failure is not None)):
        return ()
    if evidence.has_books and evidence.failure is not None:
        return ()
    paid, before = f"{evidence.paid:.2f}", f"{baseline.paid:.2f}"
    return (Difference(IN_TOTAL, None, before, None, paid, f"{more:.2f}", before, paid),)


def _sentence(found: Sequence[Difference]) -> str:
    first = found[0]
    more = f" And {len(found) - 1} more." if len(found) > 1 else ""
    if first.reference == IN_TOTAL:
        return f"The provider paid {first.psp_amount} in total; without the fault, it paid {first.books_amount}.{more}"
    mine = "nothing" if first.books_status is None else f"{first.books_status} {first.books_amount}"
    theirs = "nothing" if first.psp_status is None else f"{first.psp_status} {first.psp_amount}"
    if first.books_spent is not None and first.psp_spent is not None and mine == theirs:
        mine, theirs = f"{mine}, {first.books_spent} spent", f"{theirs}, {first.psp_spent} spent"
    return f"{first.reference}: your books say {mine}, the provider says {theirs}.{more}"
