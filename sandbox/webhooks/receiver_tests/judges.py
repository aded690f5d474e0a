"""Judge the answers of a webhook receiver: what it must accept, refuse, and do only once. Pure.

A receiver must accept with 2xx and refuse with 4xx. A 5xx is not a refusal: the receiver has failed, and the sender retries.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from sandbox.webhooks.receiver_tests.events import Outgoing

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
    """A reading of the probe for one payout, or the `error` that prevented it."""

    status: str | None = None
    applied: int = 0
    error: str | None = None
    is_unknown: bool = False
    """Whether the error is a 404, which may mean that the receiver does not know the payout yet."""


class Observed(NamedTuple):
    """The exchanges and readings of a check.

    `readings` are the probe's, as the check's `Probing` says; None without a probe. `usual_seconds` is how long the receiver
    takes to accept a single webhook. `is_idle` says that a webhook which was sent last has had its effect, and that no other
    has had one since, so what is missing then is not merely late.
    """

    exchanges: Sequence[Exchange]
    readings: Sequence[Reading] | None = None
    usual_seconds: float = 0.0
    limits: Limits = Limits()
    signing: str = "v1"
    is_idle: bool = False


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


def must_not_accept(observed: Observed) -> Verdict:
    """Judge a check whose requests the receiver must not accept. A 5xx is advice: examples of libraries answer with it."""
    verdict = must_refuse(observed)
    answers = [answer for _, answer in observed.exchanges]
    crashed = verdict.outcome == "failed" and all(answer.status is not None and answer.status >= 400 for answer in answers)
    if crashed and (observed.exchanges[verdict.decisive].answer.status or 0) >= 500:
        text = f"{verdict.observation} A 5xx asks the sender to try again, which never helps."
        return Verdict("advice", text, verdict.decisive)
    return verdict


def judge_future(observed: Observed) -> Verdict:
    """Judge the refusal of a timestamp in the future."""
    verdict = must_refuse(observed)
    if observed.signing == "stripe" and observed.exchanges[verdict.decisive].answer.is_accepted:
        # Receivers that use Stripe's libraries must not fail.
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
    verdict = must_accept(observed)
    target = answer.headers.get("location")
    if verdict.outcome == "failed" and target is not None:
        return Verdict("failed", f"{verdict.observation} It points to {target}.")
    return verdict


def judge_large(observed: Observed) -> Verdict:
    """Judge a webhook as large as the sandbox sends, and a larger one."""
    verdict = must_accept(observed)
    if verdict.outcome == "failed" and verdict.decisive > 0:
        return Verdict("advice", f"{verdict.observation} The sandbox sends none as large as that.", verdict.decisive)
    return verdict


def judge_time(observed: Observed) -> Verdict:
    """Judge how long the receiver takes to answer a valid webhook."""
    # The faster of two answers counts, so that a pause of a busy machine does not fail the check.
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
