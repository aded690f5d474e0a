"""Judge the answers of a webhook receiver: what it must accept, refuse, and do only once. Pure.

A receiver must accept with 2xx and refuse with 4xx. A 5xx is no refusal: it says that the receiver broke down, and the sender
retries.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from sandbox.domain.receiver_events import Outgoing

Outcome = Literal["passed", "failed", "skipped", "advice"]


class Limits(msgspec.Struct, frozen=True):
    """Times in seconds: an answer after `advice` is slow, after `fail` too late; after `give_up` the test stops waiting."""

    advice: float = 5.0
    fail: float = 15.0
    give_up: float = 30.0
    probe: float = 5.0
    """How long the probe may take to show an event."""
    total: float = 300.0
    """How long a whole test may take."""


class Answer(msgspec.Struct, frozen=True):
    """A receiver's answer. Without a `status` there was none, and `error` says why."""

    status: int | None
    headers: dict[str, str]
    body: str
    error: str | None
    seconds: float
    timed_out: bool = False

    @property
    def is_accepted(self) -> bool:
        """Whether the sender counts the webhook as delivered."""
        return self.error is None and self.status is not None and 200 <= self.status <= 299


class Exchange(NamedTuple):
    """A request, and the answer to it."""

    sent: Outgoing
    answer: Answer


class Reading(msgspec.Struct, frozen=True):
    """What the probe says about a payout, or the `error` that prevented it."""

    status: str | None = None
    applied: int = 0
    error: str | None = None
    is_unknown: bool = False
    """Whether the error is a 404, which may mean that the payout is unknown as yet."""


class Observed(NamedTuple):
    """What a check did and saw.

    `readings` are the probe's, as the check's `Probing` says; None without a probe. `usual_seconds` is how long the receiver
    takes to accept a single webhook.
    """

    exchanges: Sequence[Exchange]
    readings: Sequence[Reading] | None = None
    usual_seconds: float = 0.0
    limits: Limits = Limits()
    signing: str = "v1"


class Verdict(NamedTuple):
    """A check's outcome, the observation behind it as sentences, and the number of the exchange that decided it."""

    outcome: Outcome
    observation: str = ""
    decisive: int = 0


def must_accept(observed: Observed) -> Verdict:
    """Judge a check whose requests the receiver must all accept."""
    for number, (sent, answer) in enumerate(observed.exchanges):
        if not answer.is_accepted:
            return Verdict("failed", f"{sent.label} was not accepted: {described(answer)}.", number)
    return Verdict("passed")


def must_refuse(observed: Observed) -> Verdict:
    """Judge a check whose requests the receiver must all refuse."""
    for number, (sent, answer) in enumerate(observed.exchanges):
        if answer.is_accepted:
            return Verdict("failed", f"{sent.label} was accepted: {described(answer)}.", number)
        if answer.status is None or not 400 <= answer.status <= 499:
            ending = " A refusal is a 4xx, such as 401." if answer.status is not None else ""
            return Verdict("failed", f"{sent.label} was not refused properly: {described(answer)}.{ending}", number)
    for number, reading in enumerate(observed.readings or ()):
        if reading.error is None and reading.applied > 0:
            sent, answer = observed.exchanges[number]
            what = f"{sent.label} was refused ({described(answer)}), but the receiver acted on it"
            return Verdict("failed", f"{what}: `applied` is {reading.applied}.", number)
    return Verdict("passed")


def judge_future(observed: Observed) -> Verdict:
    """Judge the refusal of a timestamp in the future."""
    verdict = must_refuse(observed)
    if observed.signing == "stripe" and observed.exchanges[0].answer.is_accepted:
        # A receiver that does what Stripe's libraries do must not fail.
        return Verdict("advice", f"{verdict.observation} Stripe's own libraries check only that a webhook is not too old.")
    return verdict


def described(answer: Answer) -> str:
    """Return an answer as the end of a sentence."""
    if answer.status is None:
        return f"no answer ({answer.error})"
    return f"the receiver answered {answer.status}" + (f" ({answer.error})" if answer.error is not None else "")


def judge_first(observed: Observed) -> Verdict:
    """Judge the first valid webhook."""
    answer = observed.exchanges[0].answer
    if answer.timed_out:
        # `answers_in_time` fails because of this, so this check does not.
        return Verdict("skipped", f"There was no answer within {observed.limits.give_up:g} s.")
    return must_accept(observed)


def judge_time(observed: Observed) -> Verdict:
    """Judge how long the receiver takes to answer a valid webhook."""
    # The faster of two answers counts, so that one pause of a busy machine fails nothing.
    limits, number = observed.limits, len(observed.exchanges) - 1
    answer = observed.exchanges[number].answer
    seconds = min(answer.seconds, observed.usual_seconds)
    if seconds > limits.fail:
        is_unseen = seconds >= limits.give_up
        taken = f"no answer within {limits.give_up:g} s" if is_unseen else f"an answer only after {seconds:.1f} s"
        return Verdict("failed", f"A valid webhook got {taken}; an attempt fails after {limits.fail:g} s.", number)
    if seconds > limits.advice:
        return Verdict("advice", f"A valid webhook got an answer after {seconds:.1f} s. That is close to the limit.", number)
    return must_accept(observed)


def judge_burst(observed: Observed) -> Verdict:
    """Judge the answers to many valid webhooks at once."""
    # The receiver's usual time does not count here: `answers_in_time` judges it.
    latest = observed.limits.fail + observed.usual_seconds
    bad = [number for number, (_, answer) in enumerate(observed.exchanges) if not answer.is_accepted or answer.seconds > latest]
    if not bad:
        return _judge_effects(observed)
    answers = [observed.exchanges[number].answer for number in bad]
    what = f"Of {len(observed.exchanges)} valid webhooks sent at once, {len(bad)} were not accepted in time"
    if all(answer.status == 429 and "retry-after" in answer.headers for answer in answers):
        return Verdict("advice", f"{what}: the receiver answered 429 with Retry-After, so the sender slows down.", bad[0])
    first = answers[0]
    how = f"an answer came after {first.seconds:.1f} s" if first.is_accepted else described(first)
    return Verdict("failed", f"{what}; for the first of them {how}.", bad[0])


def _judge_effects(observed: Observed) -> Verdict:
    """Judge whether accepted webhooks have had their effect. A receiver may be slow at that, so this only advises."""
    missing = [
        number for number, reading in enumerate(observed.readings or ()) if reading.error is None and reading.applied < 1
    ]
    if not missing:
        return Verdict("passed")
    return Verdict(
        "advice",
        f"All {len(observed.exchanges)} webhooks sent at once were accepted, but {observed.limits.probe:g} s later the probe "
        f"does not show the effect of {len(missing)} of them. Check that none is lost.",
        missing[0],
    )


def judge_duplicate(observed: Observed) -> Verdict:
    """Judge the second arrival of a webhook."""
    verdict = _judge_states(observed)
    if verdict is not None:
        return verdict
    assert observed.readings is not None
    before, after = observed.readings
    if after.applied > before.applied:
        return Verdict(
            "failed",
            f"The same webhook arrived twice, and the receiver acted on it twice: `applied` went from {before.applied} to "
            f"{after.applied}.",
            1,
        )
    return Verdict("passed")


def judge_order(observed: Observed) -> Verdict:
    """Judge the arrival of an older event after a newer one."""
    verdict = _judge_states(observed)
    if verdict is not None:
        return verdict
    assert observed.readings is not None
    before, after = observed.readings
    if after.status != before.status:
        return Verdict(
            "failed",
            f"The older event arrived last and overwrote the newer one: `status` went from {before.status} to {after.status}.",
            1,
        )
    return Verdict("passed")


def _judge_states(observed: Observed) -> Verdict | None:
    """Judge what both checks with a probe have in common. Return None if all of it is right."""
    accepted = must_accept(observed)
    if accepted.outcome != "passed":
        return accepted
    if observed.readings is None:
        return Verdict("skipped", "The statuses are right. Without a probe URL, the effects cannot be seen.")
    for reading in observed.readings:
        if reading.error is not None:
            return Verdict("failed", f"The probe is not usable: {reading.error}.")
    before = observed.readings[0]
    if before.status is None or before.applied < 1:
        return Verdict(
            "failed",
            f"The receiver accepted an event, but {observed.limits.probe:g} s later the probe did not show its effect: "
            f"`status` is {before.status or 'null'}, `applied` is {before.applied}.",
        )
    return None
