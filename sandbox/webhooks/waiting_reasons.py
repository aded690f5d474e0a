"""Explain in words why a delivery's next attempt is scheduled when it is, and what holds it back. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sandbox.domain.clock import Clock, render
from sandbox.domain.enumerations import HoldReason, NextReason
from sandbox.http.retry_after import parse_retry_after
from sandbox.webhooks.delivery.retry_schedule import PROFILES, is_final, next_attempt

_DECIDE_TIME: Final = timedelta(seconds=3)
"""Maximum time between the end of a call and the decision when to try again. A fault can hold a call back for a second."""
_LONGEST_UNIT: Final = (("hour", 3600), ("minute", 60))


@dataclass(frozen=True, slots=True)
class LastAttempt:
    """The last attempt at a delivery. `at` is in the merchant's time, `signed_at` in the host's, if anything was sent."""

    number: int
    at: datetime
    status: int | None
    duration: timedelta
    is_postponed: bool
    """Whether a fault postponed it, so that nothing was sent."""
    fault_kind: str | None
    retry_after: str | None
    """The response's Retry-After header."""
    signed_at: datetime | None


@dataclass(frozen=True, slots=True)
class EndpointState:
    """The endpoint of a delivery, as it is now."""

    status: str
    disabled_reason: str | None
    retry_profile: str
    is_relayed: bool
    rate_limit: int | None
    rate_free_at: datetime | None
    """The host's time at which its rate limit allows the next attempt."""


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """A delivery, as it is now. `due` and `changed_at` are in the merchant's time, `leased_until` in the host's."""

    id: str
    status: str
    scheduled: int
    """Number of attempts that count in the retry schedule."""
    due: datetime | None
    changed_at: datetime
    """When it was created, attempted or resent, whichever was last."""
    is_resent: bool
    leased_until: datetime | None
    last: LastAttempt | None
    endpoint: EndpointState | None
    """None if it was deleted."""
    earlier_event: str | None
    """An earlier event of the same payout, still to be delivered to this `ordered` endpoint."""


def explain_next(delivery: DeliveryState) -> tuple[NextReason, str]:
    """Return why the next attempt is due when it is, or why there is none, with a sentence."""
    due, last, endpoint = delivery.due, delivery.last, delivery.endpoint
    if delivery.status == "SUCCEEDED":
        return "SUCCEEDED", "There is no further attempt, because the endpoint accepted the event."
    if endpoint is None:
        return "ENDPOINT_DELETED", "There is no further attempt, because the endpoint was deleted."
    if delivery.status == "PAUSED":
        return "PAUSED", (
            "The event happened while the endpoint was disabled, so no attempt is scheduled. The event is kept: enable the "
            "endpoint, then resend or recover it."
        )
    if last is not None and is_final(last.status, endpoint.retry_profile) and delivery.status == "FAILED":
        return "FINAL_RESPONSE", (
            f"There is no further attempt, because the profile `{endpoint.retry_profile}` does not repeat one that was "
            f"answered with {last.status}. A resend starts the schedule over."
        )
    if delivery.status == "FAILED" or due is None:
        total = len(PROFILES[endpoint.retry_profile])
        return "EXHAUSTED", (
            f"There is no further attempt, because all {total} attempts of the profile `{endpoint.retry_profile}` failed. A "
            "resend starts the schedule over."
        )
    if (delivery.is_resent or last is None) and due > delivery.changed_at:
        if delivery.earlier_event is None:
            return "CHANGED", f"The next attempt was put off to {render(due)}."
        return "EARLIER_EVENT", (
            f"The next attempt was put off to {render(due)}, because the endpoint is `ordered` and the payout's earlier event "
            f"{delivery.earlier_event} comes first."
        )
    if delivery.is_resent:
        return "RESENT", f"The next attempt is due at {render(due)}, because someone asked for it (resend, recover or test)."
    if last is None:
        return "FIRST", f"The first attempt is due at {render(due)}, as soon as the event happened."
    if last.is_postponed:
        return "FAULT", (f"A fault of kind `{last.fault_kind}` postponed the delivery to {render(due)}. This uses up no retry.")
    return _explain_retry(delivery.id, delivery.scheduled, due, last, endpoint.retry_profile)


def _explain_retry(delivery_id: str, scheduled: int, due: datetime, last: LastAttempt, profile: str) -> tuple[NextReason, str]:
    total = len(PROFILES[profile])
    planned = next_attempt(profile, scheduled, last.at, delivery_id)
    if planned is not None:
        asked = None if last.retry_after is None else parse_retry_after(last.retry_after, last.signed_at or last.at)
        wait = planned - last.at
        if asked is not None and asked > wait and due >= last.at + asked - _DECIDE_TIME:
            return "RETRY_AFTER", (
                f"The endpoint asked for {duration(asked)} with Retry-After in its response to attempt {last.number}, so the "
                f"next attempt is due at {render(due)}. The profile `{profile}` alone would wait for {duration(wait)}."
            )
        if wait <= due - last.at <= wait + last.duration + _DECIDE_TIME:
            return "SCHEDULE", (
                f"The next attempt is number {scheduled + 1} of {total} of the profile `{profile}`. It is due at "
                f"{render(due)}: {duration(PROFILES[profile][scheduled])} after attempt {last.number} ended, less "
                "a jitter of up to 5 %."
            )
    return (
        "CHANGED",
        f"The next attempt is due at {render(due)}. A change of the endpoint after the last attempt set this time.",
    )


def explain_holds(delivery: DeliveryState, clock: Clock, wall_now: datetime) -> list[tuple[HoldReason, str]]:
    """Return everything that keeps a due attempt from starting now, besides its time. `wall_now` is the host's time."""
    endpoint, due = delivery.endpoint, delivery.due
    if endpoint is None or due is None or delivery.status != "PENDING":
        return []
    if delivery.leased_until is not None and delivery.leased_until > wall_now:
        return [("IN_PROGRESS", "An attempt is in progress: its result follows within seconds.")]
    found: list[tuple[HoldReason, str]] = []
    if endpoint.status != "ENABLED":
        reason = f" ({endpoint.disabled_reason.rstrip('.')})" if endpoint.disabled_reason else ""
        found.append(("ENDPOINT_DISABLED", f"The endpoint is disabled{reason}: its deliveries wait until it is enabled."))
    if clock.frozen_at is not None and due > clock.frozen_at:
        found.append(
            (
                "CLOCK_FROZEN",
                f"The merchant's clock is frozen at {render(clock.frozen_at)}, {duration(due - clock.frozen_at)} before the "
                "attempt is due: advance or resume the clock.",
            )
        )
    if delivery.earlier_event is not None:
        found.append(
            (
                "EARLIER_EVENT",
                f"The endpoint is `ordered`, and the payout's earlier event {delivery.earlier_event} is not delivered yet.",
            )
        )
    if endpoint.rate_free_at is not None and endpoint.rate_free_at > wall_now:
        found.append(("RATE_LIMIT", f"The endpoint's limit of {endpoint.rate_limit} attempts per second is used up for now."))
    if endpoint.is_relayed:
        found.append(("LISTENER", "Only a running `psp listen` sends the deliveries of this endpoint."))
    if not found and due <= clock.now(wall_now):
        found.append(("CAPACITY", "It is due now. A worker takes it as soon as the endpoint has capacity for another call."))
    return found


def duration(length: timedelta) -> str:
    """Return a length of time in words, such as `5 minutes`, `1.5 seconds` or `2 hours 30 minutes`."""
    seconds = round(length.total_seconds(), 1)
    parts = []
    for name, size in _LONGEST_UNIT:
        if seconds >= size:
            parts.append(_count(seconds // size, name))
            seconds %= size
    if seconds or not parts:
        parts.append(_count(round(seconds, 1), "second"))
    return " ".join(parts)


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"
