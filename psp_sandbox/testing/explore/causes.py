"""The likely cause of a finding, and its cure. What `psp certify` checks too has the cure of that check."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from psp_sandbox import application
from psp_sandbox.testing.explore.books import UNPAID, Names, statuses_of
from psp_sandbox.testing.explore.points import Point, body_of, reference_in
from psp_sandbox.testing.explore.results import At, Cause, Difference, Kind

_PASSED: Final = frozenset({"REQUESTED", "PENDING", "PROCESSING", "RETRY", "ON_HOLD", "IN_REVIEW"})
_REPEATS: Final = (Kind.TWICE, Kind.KILLED_BEFORE_ANSWER)
"""After these, the same event has arrived twice."""
_MONEY: Final = ("amount", "account_number", "bank_code", "wallet_code", "creditor_iban")
"""Members of a body, natively and in dialects, that say how much is paid to whom."""
_CERTIFY: Final = Path(application.FOLDER) / "sandbox" / "webhooks" / "receiver_tests" / "checks.toml"


def why(cause: Cause) -> str:
    """Return what happened, in a sentence or two."""
    return str(_texts()[cause]["why"])


def cure(cause: Cause) -> str:
    """Return how to fix it."""
    text = _texts()[cause]
    return str(text["cure"] if "cure" in text else _checks()[text["check"]]["cure"])


@cache
def _texts() -> Mapping[str, Any]:
    return tomllib.loads(Path(__file__).with_name("causes.toml").read_text("utf-8"))


@cache
def _checks() -> Mapping[str, Any]:
    found: Mapping[str, Any] = tomllib.loads(_CERTIFY.read_text("utf-8"))["checks"]
    return found


def likely_cause(
    points: Sequence[Point],
    found: Sequence[Difference],
    calls: Sequence[Mapping[str, Any]],
    fault_ids: Sequence[str],
    names: Names,
) -> Cause:
    """Return the likely cause of differences. `calls` are the application's calls in the journal, oldest first."""
    causes = [_of_point(point, found, calls, fault_ids, names) for point in points]
    return next((cause for cause in causes if cause is not Cause.UNKNOWN), Cause.UNKNOWN)


def _of_point(
    point: Point,
    found: Sequence[Difference],
    calls: Sequence[Mapping[str, Any]],
    fault_ids: Sequence[str],
    names: Names,
) -> Cause:
    if point.kind is Kind.FORGED:
        return Cause.FORGED_ACCEPTED
    if point.at is At.WRITE:
        return _of_write(point, found, calls, fault_ids, names)
    if all(one.psp_status in _books_statuses(one, names) for one in found):
        return Cause.APPLIED_TWICE if point.kind in _REPEATS else Cause.MONEY_AND_STATUS_APART
    if point.at in (At.STATUS, At.REST):
        return Cause.LATER_CHANGE_IGNORED
    if point.kind is Kind.TWICE:
        return Cause.APPLIED_TWICE
    if point.at is At.EVENT:
        late = point.match[-1]
        return Cause.OLDER_OVER_NEWER if any(late in _books_statuses(one, names) for one in found) else Cause.EVENT_LOST
    if point.at is At.READ and not any(_is_behind(one, names) for one in found):
        return Cause.GAVE_UP_ON_PAID
    return Cause.EVENT_LOST


def _is_behind(difference: Difference, names: Names) -> bool:
    """Whether the books have a status from which the payout has gone on."""
    return bool(_books_statuses(difference, names) & _PASSED)


def _books_statuses(difference: Difference, names: Names) -> frozenset[str]:
    return frozenset() if difference.books_status is None else statuses_of(difference.books_status, names)


def _is_given_up(difference: Difference, names: Names) -> bool:
    """Whether the books say that nothing is paid, or that the money was given back, and the provider has the payout."""
    if difference.books_status is None or difference.psp_status is None:
        return False
    is_given_back = difference.psp_status not in UNPAID and difference.books_spent == "0.00"  # whatever status came later
    return is_given_back or _books_statuses(difference, names) <= UNPAID - {difference.psp_status}


def _of_write(
    point: Point,
    found: Sequence[Difference],
    calls: Sequence[Mapping[str, Any]],
    fault_ids: Sequence[str],
    names: Names,
) -> Cause:
    number = next((n for n, call in enumerate(calls) if call["fault"] and call["fault"]["id"] in fault_ids), None)
    if number is None:
        return Cause.UNKNOWN
    hit, later = (
        calls[number],
        [
            call
            for call in calls[number + 1 :]
            if (call["method"], call["path"]) == (calls[number]["method"], calls[number]["path"])
        ],
    )
    for call in later:
        if _identity(call) != _identity(hit) and _money(call) == _money(hit):
            return Cause.NEW_KEY if reference_in(call) == reference_in(hit) else Cause.NEW_REFERENCE
    if point.kind is Kind.ANSWER_AFTER_WEBHOOKS:
        # No answer says that a payout failed, so an application that believes so did not wait for the answer.
        return Cause.GAVE_UP_ON_PAID if any(_is_given_up(one, names) for one in found) else Cause.ANSWER_OVER_WEBHOOK
    of_hit = [one for one in found if one.reference == reference_in(hit)] or list(found)
    if any(one.psp_status is None for one in of_hit):
        return Cause.NO_RETRY
    if any(one.psp_status not in UNPAID and one.books_spent in (None, "0.00") for one in of_hit):
        return Cause.GAVE_UP_ON_PAID
    if any(one.books_spent is not None and one.books_spent.startswith("-") for one in of_hit):
        return Cause.GAVE_UP_ON_PAID  # given back twice: when the call had no answer, and when the payout failed
    return Cause.NO_RETRY


def _identity(call: Mapping[str, Any]) -> Any:
    """What makes a call safe to repeat."""
    return call["idempotency_key"] or reference_in(call)


def _money(call: Mapping[str, Any]) -> tuple[Any, ...]:
    body = body_of(call)
    return tuple(body.get(name) for name in _MONEY)
