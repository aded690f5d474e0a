"""What the pages call the parts of an exploration. Sentences say what happened, not which option did it."""

from typing import Final, NamedTuple

from psp_sandbox.testing.explore.results import At, Cause, Kind, Verdict


class Words(NamedTuple):
    """A short name, and what it means in one sentence."""

    name: str
    meaning: str


VERDICTS: Final = {
    Verdict.WRONG: Words("wrong", "The two books differ: money is lost, or paid without being booked."),
    Verdict.UNSETTLED: Words("unsettled", "Something still moves, or is not acknowledged, long after everything could settle."),
    Verdict.REFUSED: Words("noticed by the test", "The test failed, so somebody knows; both books agree."),
    Verdict.RIGHT: Words("right", "The test passed, and both books agree."),
    Verdict.NOT_REACHED: Words(
        "not reached", "The test did not come to this place, or the application could not restart there."
    ),
}
"""Worst first."""

PLACES: Final = {
    At.WRITE: "When the application sends something",
    At.READ: "When it asks for something",
    At.EVENT: "When a webhook arrives",
    At.STATUS: "When an operator or the bank acts afterwards",
    At.REST: "When nothing goes wrong",
    At.APPLICATION: "When the application itself dies",
}

KINDS: Final = {
    Kind.REQUEST_LOST: Words("Request lost", "The request never arrived; the application sees a broken connection."),
    Kind.ANSWER_LOST: Words("Answer lost", "The request took effect, and the connection broke before the answer."),
    Kind.ANSWER_AFTER_WEBHOOKS: Words("Answer after its webhooks", "The webhooks were faster than the answer."),
    Kind.HALF_ANSWER: Words("Half an answer", "The request took effect, and the answer broke off in the middle."),
    Kind.GATEWAY_ERROR: Words("Gateway error after it", "The request took effect, and a gateway answered with an error (502)."),
    Kind.UNAVAILABLE: Words("Unavailable", "The provider was unavailable for a moment (503)."),
    Kind.RATE_LIMITED: Words("Too many calls", "The provider asked to try again later (429)."),
    Kind.KEY_EXPIRED: Words("Key expired", "No answer for a day; the retry comes after the idempotency key has expired."),
    Kind.TWICE: Words("Twice", "The same webhook arrived twice."),
    Kind.LATE: Words("Two hours late", "The webhook arrived two hours after the event."),
    Kind.OUT_OF_ORDER: Words("Out of order", "The webhook arrived after the one that follows it."),
    Kind.ONLY_RECOVERED: Words("Only when recovered", "The webhook arrived when missed ones were sent again."),
    Kind.FORGED: Words("Forged", "A forged copy came with the webhook."),
    Kind.REINITIATED_TWICE: Words("Reinitiated twice", "An operator sent the failed payout again, twice."),
    Kind.CANCELLED: Words("Cancelled", "An operator cancelled the payout."),
    Kind.RETURNED: Words("Returned", "The bank returned the money."),
    Kind.TIME_PASSES: Words("Time passes", "The test ran as it is, and then days passed."),
    Kind.KILLED_AT_CALL: Words("Killed at a call", "The application died at a call to the provider, and started again."),
    Kind.KILLED_BEFORE_ANSWER: Words("Killed before its answer", "It died while it handled a webhook, and started again."),
    Kind.KILLED_AFTER_ANSWER: Words(
        "Killed after its answer", "It died right after it had answered a webhook, and started again."
    ),
}

CAUSES: Final = {
    Cause.NEW_KEY: "A new idempotency key after an unknown outcome",
    Cause.NEW_REFERENCE: "A new reference after an unknown outcome",
    Cause.APPLIED_TWICE: "An event was applied twice",
    Cause.OLDER_OVER_NEWER: "An older event replaced a newer state",
    Cause.FORGED_ACCEPTED: "A forged event was accepted",
    Cause.ANSWER_OVER_WEBHOOK: "An old answer replaced what a webhook had told",
    Cause.EVENT_LOST: "An event was acknowledged and lost",
    Cause.NO_RETRY: "A call was not repeated",
    Cause.GAVE_UP_ON_PAID: "An unknown outcome was treated as a failure",
    Cause.LATER_CHANGE_IGNORED: "A later change was ignored",
    Cause.MONEY_AND_STATUS_APART: "The status is right, and the money booked for it is not",
    Cause.NOT_ACKNOWLEDGED: "An event was never acknowledged",
    Cause.UNKNOWN: "Unknown",
}
