"""The checks of a receiver test: the requests that each one sends, and how it judges the answers. Pure.

A receiver must accept with 2xx and refuse with 4xx. A 5xx is no refusal: it says that the receiver broke down, and the sender
retries. Texts for people (why a check matters, how to fix it) are in `receiver_tests/checks.toml`.
"""

from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from sandbox.domain.receiver_events import Forge, Outgoing, encode, spelled_unusually

Outcome = Literal["passed", "failed", "skipped", "advice"]

BURST: Final = 50
"""How many webhooks `survives_burst` sends at once."""
LARGE_BODY: Final = 256 * 1024
_HOUR: Final = 3600


class Limits(msgspec.Struct, frozen=True):
    """Times in seconds: an answer after `advice` is slow, after `fail` too late, and after `give_up` nobody waits for it."""

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

    `readings` are the probe's before and after the last webhook, without a probe none. `usual_seconds` is how long the receiver
    takes to accept a single webhook.
    """

    exchanges: Sequence[Exchange]
    readings: tuple[Reading, Reading] | None = None
    usual_seconds: float = 0.0
    limits: Limits = Limits()
    signing: str = "v1"


class Verdict(NamedTuple):
    """A check's outcome, the observation behind it as sentences, and the number of the exchange that decided it."""

    outcome: Outcome
    observation: str = ""
    decisive: int = 0


Build = Callable[[Forge], list[Outgoing]]
Judge = Callable[[Observed], Verdict]


class Check(NamedTuple):
    """One check. `build` returns its requests, which are sent in order, or at the same time if it is a burst."""

    name: str
    build: Build
    judge: Judge
    not_applicable: Callable[[Forge], str | None] = lambda forge: None
    """Returns why the check does not apply to the way of signing, or None."""
    is_burst: bool = False
    needs_probe: bool = False
    """Whether its requests change one payout, whose state the probe shows."""


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
    return Verdict("passed")


def _judge_future(observed: Observed) -> Verdict:
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


def _judge_first(observed: Observed) -> Verdict:
    answer = observed.exchanges[0].answer
    if answer.timed_out:
        # A time limit is broken, which is for `answers_in_time` to say.
        return Verdict("skipped", f"There was no answer within {observed.limits.give_up:g} s.")
    return must_accept(observed)


def _judge_time(observed: Observed) -> Verdict:
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


def _judge_burst(observed: Observed) -> Verdict:
    # The receiver's usual time does not count here: `answers_in_time` judges it.
    latest = observed.limits.fail + observed.usual_seconds
    bad = [number for number, (_, answer) in enumerate(observed.exchanges) if not answer.is_accepted or answer.seconds > latest]
    if not bad:
        return Verdict("passed")
    answers = [observed.exchanges[number].answer for number in bad]
    what = f"Of {len(observed.exchanges)} valid webhooks sent at once, {len(bad)} were not accepted in time"
    if all(answer.status == 429 and "retry-after" in answer.headers for answer in answers):
        return Verdict("advice", f"{what}: the receiver answered 429 with Retry-After, so the sender slows down.", bad[0])
    first = answers[0]
    how = f"an answer came after {first.seconds:.1f} s" if first.is_accepted else described(first)
    return Verdict("failed", f"{what}; for the first of them {how}.", bad[0])


def _judge_duplicate(observed: Observed) -> Verdict:
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


def _judge_order(observed: Observed) -> Verdict:
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


def _valid(label: str) -> Build:
    return lambda forge: [forge.signed(label, forge.event(forge.new_id()))]


def _tampered(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    webhook = forge.signed("A webhook whose amount was changed after it was signed", event)
    return [msgspec.structs.replace(webhook, body=webhook.body.replace(b'"1500.00"', b'"9500.00"'))]


def _wrong_key(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    return [forge.signed("A webhook signed with another secret", event, secrets=[forge.other_secret])]


def _aged(label: str, age: int) -> Build:
    return lambda forge: [forge.signed(label, forge.event(forge.new_id()), age=age)]


def _missing_headers(forge: Forge) -> list[Outgoing]:
    requests = []
    for name in forge.required_headers:
        webhook = forge.signed("", forge.event(forge.new_id()))
        requests.append(forge.with_header(webhook, f"A webhook without {name}", name, None))
    if len(requests) > 1:
        webhook = forge.signed("", forge.event(forge.new_id()))
        kept = {name: value for name, value in webhook.headers.items() if name not in forge.required_headers}
        label = f"A webhook without any of {', '.join(forge.required_headers)}"
        requests.append(msgspec.structs.replace(webhook, label=label, headers=kept))
    return requests


def _malformed(forge: Forge) -> list[Outgoing]:
    def webhook() -> Outgoing:
        return forge.signed("", forge.event(forge.new_id()))

    return [
        forge.with_header(webhook(), "A webhook whose signature header is one word", forge.signature_header, "not-a-signature"),
        forge.with_signature(webhook(), "A webhook whose signature is not encoded properly", lambda _: "*not*encoded*"),
        forge.with_signature(webhook(), "A webhook with only the first 8 characters of its signature", lambda text: text[:8]),
        forge.with_signature(webhook(), "A webhook with an empty signature", lambda _: ""),
    ]


def _duplicate(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    # As a retry does, the second one has a later timestamp, and so another signature, but the same id.
    return [forge.signed("The webhook", event, age=1), forge.signed("The same webhook, sent again,", event)]


def _out_of_order(forge: Forge) -> list[Outgoing]:
    payout_id = forge.new_id()
    older, newer = forge.event(payout_id, 2), forge.event(payout_id, 3)
    return [
        forge.signed("The newer event (payout.succeeded, version 3)", newer),
        forge.signed("The older event (payout.processing, version 2), which arrived last,", older),
    ]


def _rotation(forge: Forge) -> list[Outgoing]:
    return [forge.rotated(forge.event(forge.new_id()), wrong_first=first) for first in (True, False)]


def _unknown_event(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    return [forge.signed("A webhook of a type that does not exist yet", {**event, "type": "payout.new_in_the_future"})]


def _unknown_fields(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    data = {**event["data"], "new_field": "new", "new_object": {"new": True}}
    return [forge.signed("A webhook with new fields", {**event, "data": data, "new_field": 1})]


def _raw_body(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    label = "A webhook whose JSON has unusual spaces, escapes and order of members"
    return [forge.signed(label, event, body=spelled_unusually(event))]


def _large_body(forge: Forge) -> list[Outgoing]:
    event = forge.event(forge.new_id())
    event["data"]["metadata"] = {"note": ""}
    event["data"]["metadata"]["note"] = "x" * (LARGE_BODY - len(encode(event)))
    return [forge.signed(f"A webhook of {LARGE_BODY // 1024} KiB", event)]


def _burst(forge: Forge) -> list[Outgoing]:
    return [forge.signed("One of the webhooks", forge.event(forge.new_id())) for _ in range(BURST)]


def _unsigned(forge: Forge) -> list[Outgoing]:
    return [Outgoing("A GET request", {}, b"", "GET"), Outgoing("An empty POST without a signature", {}, b"")]


def _no_time(forge: Forge) -> str | None:
    return None if forge.signs_time() else "GitHub's way of signing has no timestamp, so this check does not apply."


def _one_signature(forge: Forge) -> str | None:
    return None if forge.has_rotation() else "GitHub sends a single signature, so this check does not apply."


CHECKS: Final = (
    Check("accepts_valid", _valid("A valid webhook"), _judge_first),
    Check("refuses_tampered_body", _tampered, must_refuse),
    Check("refuses_wrong_key", _wrong_key, must_refuse),
    Check("refuses_stale_timestamp", _aged("A webhook signed an hour ago", _HOUR), must_refuse, _no_time),
    Check("refuses_future_timestamp", _aged("A webhook dated an hour ahead", -_HOUR), _judge_future, _no_time),
    Check("refuses_missing_headers", _missing_headers, must_refuse),
    Check("refuses_malformed_signature", _malformed, must_refuse),
    Check("handles_duplicate", _duplicate, _judge_duplicate, needs_probe=True),
    Check("handles_out_of_order", _out_of_order, _judge_order, needs_probe=True),
    Check("accepts_rotation", _rotation, must_accept, _one_signature),
    Check("accepts_unknown_event", _unknown_event, must_accept),
    Check("accepts_unknown_fields", _unknown_fields, must_accept),
    Check("keeps_raw_body", _raw_body, must_accept),
    Check("accepts_large_body", _large_body, must_accept),
    Check("survives_burst", _burst, _judge_burst, is_burst=True),
    Check("answers_in_time", _valid("A valid webhook"), _judge_time),
    Check("refuses_unsigned", _unsigned, must_refuse),
)
"""All checks, in the order of a report."""
NAMES: Final = tuple(check.name for check in CHECKS)
