"""How an endpoint's attempts change its health: since when it has been failing, and whether it is disabled. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, NamedTuple

import msgspec

from sandbox.domain.clock import render
from sandbox.webhooks.delivery.retry_schedule import Outcome

DISABLE_AFTER: Final = timedelta(days=5)
"""An endpoint is disabled when an attempt fails and none has succeeded for this long, in the merchant's time. A retry schedule
ends after 3 days and 4 hours at the latest, unless the endpoint asks for longer waits."""

MAX_HISTORY: Final = 20
"""Maximum number of status changes that an endpoint keeps, the newest ones."""


class StatusChange(msgspec.Struct):
    """A change of an endpoint's status. `at` is in the merchant's time."""

    at: str
    status: str
    reason: str | None


class AttemptOutcome(NamedTuple):
    """The outcome of one attempt. `failing_since` is the endpoint's when the attempt was claimed."""

    endpoint_id: str
    failing_since: datetime | None
    at: datetime
    outcome: Outcome


class HealthChange(msgspec.Struct):
    """The findings of a batch of attempts about an endpoint whose row may have to change."""

    id: str
    succeeded: bool
    failed_at: datetime | None
    """The first failure after the last success."""
    last_failed_at: datetime | None
    gone: bool
    """Whether it responded with 410."""
    at: str
    """When its status changes, if it does."""


def health_changes(outcomes: Iterable[AttemptOutcome]) -> list[HealthChange]:
    """Return the endpoints that may have to change, in the order of their ids. Usually there are none.

    They are those that begin or cease to fail, have failed for DISABLE_AFTER, or responded with 410.
    """
    by_endpoint: dict[str, list[AttemptOutcome]] = defaultdict(list)
    for one in outcomes:
        by_endpoint[one.endpoint_id].append(one)
    found = []
    for endpoint_id, attempts in sorted(by_endpoint.items()):
        succeeded_at = max((one.at for one in attempts if one.outcome == "succeeded"), default=None)
        failures = [one for one in attempts if one.outcome != "succeeded" and (succeeded_at is None or one.at > succeeded_at)]
        recovers = succeeded_at is not None and any(one.failing_since is not None for one in attempts)
        matters = any(one.failing_since is None or one.at - one.failing_since >= DISABLE_AFTER for one in failures)
        gone = any(one.outcome == "gone" for one in attempts)
        if recovers or matters or gone:
            times = [one.at for one in failures]
            first_failed_at, last_failed_at = min(times, default=None), max(times, default=None)
            at = render(max(one.at for one in attempts))
            found.append(HealthChange(endpoint_id, succeeded_at is not None, first_failed_at, last_failed_at, gone, at))
    return found


def add_to_history(history: Iterable[StatusChange], change: StatusChange) -> list[StatusChange]:
    """Return the history with a change at its end, without the oldest ones if it becomes too long."""
    return [*history, change][-MAX_HISTORY:]


def history_from_text(text: str | None) -> list[StatusChange]:
    """Return a history from its stored JSON."""
    return [] if text is None else _decode(text)


def history_to_text(history: list[StatusChange]) -> str:
    """Return a history as the JSON that is stored."""
    return msgspec.json.encode(history).decode()


_decode: Final = msgspec.json.Decoder(list[StatusChange]).decode
