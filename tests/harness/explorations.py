"""Explorations as `pytest --psp-explore` returns them, for the tests of their reports."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from psp_sandbox.testing.explore.points import OF_WRITES
from psp_sandbox.testing.explore.results import (
    At,
    Cause,
    Difference,
    Exploration,
    Kind,
    LeftOut,
    NotTried,
    PointResult,
    TimelineRow,
    Verdict,
)  # fmt: skip

KINDS: Final = {
    At.WRITE: (Kind.REQUEST_LOST, *(kind for kind in OF_WRITES if kind is not Kind.REQUEST_LOST)),
    At.READ: (Kind.REQUEST_LOST, Kind.UNAVAILABLE, Kind.RATE_LIMITED),
    At.EVENT: (Kind.TWICE, Kind.LATE, Kind.OUT_OF_ORDER, Kind.ONLY_RECOVERED, Kind.FORGED),
    At.STATUS: (Kind.REINITIATED_TWICE, Kind.CANCELLED, Kind.RETURNED),
    At.APPLICATION: (Kind.KILLED_AT_CALL, Kind.KILLED_BEFORE_ANSWER, Kind.KILLED_AFTER_ANSWER),
}  # fmt: skip
TESTS: Final = (
    "examples/shop/tests/test_paying.py::test_a_seller_is_paid_the_whole_balance",
    "examples/shop/tests/test_paying.py::test_each_run_pays_each_seller_what_is_new",
    "examples/shop/tests/test_paying.py::test_a_failed_payout_returns_the_money_to_the_seller",
    "examples/shop/tests/test_webhooks.py::test_a_late_webhook_does_not_undo_a_newer_one[payout.succeeded-120000]",
)
_PLACES: Final = {At.WRITE: "POST /payouts#1", At.READ: "GET /payouts/{id}#1", At.EVENT: "payout.succeeded#1"}
_START: Final = "2026-03-01T09:00:00.000Z"


def point(test: str, at: At, kind: Kind, verdict: Verdict = Verdict.RIGHT, **more: Any) -> PointResult:
    """Return the result of a point. One that is wrong or unsettled has a reason, a cause and a repeat line."""
    place = _PLACES.get(at, "end#1")
    if verdict in (Verdict.WRONG, Verdict.UNSETTLED):
        more = {
            "reason": "The application's books and the provider's differ on 1 payout.",
            "cause": Cause.GAVE_UP_ON_PAID,
            "cure": "Treat no answer as unknown: repeat the call with the same key until there is an answer.",
            "repeat": f'pytest {test} --psp-point "{place}:{kind}"',
            "bundle": ".psp-explore/7f3a.psp-world.json",
            **more,
        }
    return PointResult(test, at, place, kind, verdict, seconds=0.6, **more)


def paid_twice(reference: str, amount: str) -> dict[str, Any]:
    """Return the differences and the timeline of a payout that was credited although it was paid."""
    rows = [
        (_START, "application", f"POST /payouts {reference} {amount}, key {reference[:8]}"),
        (_START, "provider", f"creates the payout {reference}; the connection is lost before the answer"),
        ("2026-03-01T09:00:00.120Z", "application", "books the payout as refused, and credits the seller"),
        ("2026-03-01T09:00:00.150Z", "provider", f"PROCESSING → SUCCESS, {amount} paid"),
        ("2026-03-01T09:00:00.160Z", "provider", "sends payout.succeeded"),
        ("2026-03-01T09:00:00.170Z", "application", "answers 200 to payout.succeeded"),
        ("2026-03-02T09:00:00.000Z", "application", f"POST /payouts, another {amount} for the same seller"),
    ]
    return {
        "differences": (Difference(reference, "REFUSED", amount, "SUCCESS", amount, amount, "0.00", amount),),
        "timeline": tuple(TimelineRow(*row) for row in rows),
    }


def exploration(tests: Sequence[str] = TESTS, *, findings: bool = True, currency: str = "PKR") -> Exploration:
    """Return an exploration of all kinds in each test; with findings, two points of the first test are wrong."""
    points = list(_points(tests, findings))
    return Exploration(
        command="pytest examples/shop --psp-explore --psp-report-file evidence.html",
        seed=7,
        started_at="2026-03-01T08:59:00.000Z",
        virtual_hours=78,
        points=tuple(points),
        left_out=(LeftOut("examples/shop/tests/test_webhooks.py::test_a_replayed_webhook_is_refused", "Its calls differ."),),
        not_tried=(NotTried(Kind.KILLED_AT_CALL, "The application runs in the tests' process, which cannot be killed."),),
        planned=len(points) + 12,
        currency=currency,
    )


def _points(tests: Sequence[str], findings: bool) -> Iterator[PointResult]:
    for number, test in enumerate(tests):
        for at, kinds in KINDS.items():
            for kind in kinds:
                verdict, more = Verdict.RIGHT, {}
                if findings and number == 0 and kind in (Kind.ANSWER_LOST, Kind.HALF_ANSWER):
                    verdict, more = Verdict.WRONG, paid_twice("1f0c7c1e-2a52-4d0e-9df2-41c1a5f2b7aa", "1250.35")
                elif findings and number == 1 and kind is Kind.ONLY_RECOVERED:
                    verdict, more = Verdict.UNSETTLED, {"cause": Cause.EVENT_LOST, "reason": "An event was never acknowledged."}
                elif number == 2 and at is At.WRITE:
                    verdict, more = Verdict.REFUSED, {"reason": "AssertionError: assert ('0.00', ['PENDING']) == ('0.00', [])"}
                elif number == 3 and at is At.READ:
                    verdict, more = Verdict.NOT_REACHED, {"reason": "The test made no such call."}
                yield point(test, at, kind, verdict, **more)
