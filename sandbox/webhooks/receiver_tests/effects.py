"""Judge the effects of webhooks, which only the probe shows: each event has one, and only one, and none is lost. Pure."""

from typing import Final

from sandbox.webhooks.receiver_tests.judges import Observed, Reading, Verdict, described, must_accept

SECOND_FAILURE: Final = 5
"""The position of the second payout.failed among the requests that `judge_changes` judges."""
_UNSEEN: Final = Verdict("skipped", "The statuses are right. Without a probe URL, the effects cannot be seen.")


def judge_burst(observed: Observed) -> Verdict:
    """Judge the answers to many valid webhooks that were sent together."""
    # The receiver's usual time does not count here: `answers_in_time` judges it.
    latest = observed.limits.fail + observed.usual_seconds
    bad = [number for number, (_, answer) in enumerate(observed.exchanges) if not answer.is_accepted or answer.seconds > latest]
    if not bad:
        return _judge_effects(observed)
    answers = [observed.exchanges[number].answer for number in bad]
    what = f"Of {len(observed.exchanges)} valid webhooks sent at the same time, {len(bad)} were not accepted in time"
    if all(answer.status == 429 and "retry-after" in answer.headers for answer in answers):
        return Verdict("advice", f"{what}: the receiver answered 429 with Retry-After, so the sender slows down.", bad[0])
    first = answers[0]
    how = f"an answer came after {first.seconds:.1f} s" if first.is_accepted else described(first)
    return Verdict("failed", f"{what}; for the first of them {how}.", bad[0])


def _judge_effects(observed: Observed) -> Verdict:
    """Judge whether accepted webhooks have had their effect. It is only advice if they may still have it."""
    missing = [
        number for number, reading in enumerate(observed.readings or ()) if reading.error is None and reading.applied < 1
    ]
    if not missing:
        return Verdict("passed")
    what = (
        f"All {len(observed.exchanges)} webhooks sent at the same time were accepted, but {observed.limits.probe:g} s later "
        f"the probe does not show the effect of {len(missing)} of them."
    )
    if observed.is_idle:
        return Verdict("failed", f"{what} A webhook that was sent after them has had its effect, so they are lost.", missing[0])
    return Verdict("advice", f"{what} Check that none is lost.", missing[0])


def must_act(observed: Observed) -> Verdict:
    """Judge a check whose requests the receiver must all accept, and act on.

    Only checks of effects report an unusable probe.
    """
    accepted = must_accept(observed)
    if accepted.outcome != "passed":
        return accepted
    for number, reading in enumerate(observed.readings or ()):
        problem = None if reading.error is not None else _unusable(reading, observed)
        if problem is not None:
            return Verdict("failed", f"{observed.exchanges[number].sent.label} was accepted. {problem}", number)
    return Verdict("passed")


def judge_copies(observed: Observed) -> Verdict:
    """Judge webhooks that each arrived in several copies at the same time. There is a reading for each webhook."""
    readings = observed.readings
    if readings is None:
        return _UNSEEN
    copies = len(observed.exchanges) // len(readings)
    for number, reading in enumerate(readings):
        first = number * copies
        sent = observed.exchanges[first].sent
        # The others may be refused, for example because the first one is still in progress: the sender retries them.
        if not any(answer.is_accepted for _, answer in observed.exchanges[first : first + copies]):
            how = described(observed.exchanges[first].answer)
            return Verdict("failed", f"{sent.label} was accepted none of {copies} times: {how}.", first)
        problem = _unusable(reading, observed)
        if problem is not None:
            return Verdict("failed", problem, first)
        if reading.applied > 1:
            what = f"{sent.label} arrived {copies} times at the same time, and the receiver acted on it {reading.applied} times"
            return Verdict("failed", f"{what}: `applied` is {reading.applied}.", first)
    return Verdict("passed")


def judge_changes(observed: Observed) -> Verdict:
    """Judge the events of a payout that fails, is reinitiated, fails again, is reinitiated again, and succeeds.

    The readings are those after the first failure, the reinitiation, the second failure, and the success.
    """
    verdict = _judge_states(observed)
    if verdict is not None:
        return verdict
    assert observed.readings is not None
    failed, again, failed_again, succeeded = observed.readings
    story = "A payout failed, was reinitiated, and failed again"
    if failed_again.applied <= again.applied or failed_again.status != failed.status:
        return Verdict(
            "failed",
            f"{story}. The receiver did not act on the second payout.failed: `applied` went from {again.applied} to "
            f"{failed_again.applied}, and `status` is {failed_again.status}.",
            SECOND_FAILURE,
        )
    if succeeded.applied <= failed_again.applied or succeeded.status == failed_again.status:
        return Verdict(
            "failed",
            f"{story}, and succeeded in the end. The receiver did not act on payout.succeeded: `applied` went from "
            f"{failed_again.applied} to {succeeded.applied}, and `status` is {succeeded.status}.",
            len(observed.exchanges) - 1,
        )
    return Verdict("passed")


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
    """Judge the readings as both checks with a probe do. Return None if all are right."""
    accepted = must_accept(observed)
    if accepted.outcome != "passed":
        return accepted
    if observed.readings is None:
        return _UNSEEN
    for reading in observed.readings:
        if reading.error is not None:
            return Verdict("failed", f"The probe is not usable: {reading.error}.")
    problem = _unusable(observed.readings[0], observed)
    return None if problem is None else Verdict("failed", problem)


def _unusable(reading: Reading, observed: Observed) -> str | None:
    """Check a reading that must show the effect of an event. Return the error as a sentence, or None."""
    if reading.error is not None:
        return f"The probe is not usable: {reading.error}."
    if reading.status is not None and reading.applied > 0:
        return None
    return (
        f"The receiver accepted an event, but {observed.limits.probe:g} s later the probe did not show its effect: "
        f"`status` is {reading.status or 'null'}, `applied` is {reading.applied}."
    )
