"""Make the world misbehave during a run, and let it come to rest afterwards."""

import contextlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from psp_sandbox.client import ProblemError, PspError
from psp_sandbox.testing.explore.books import Paid, provider_rows
from psp_sandbox.testing.explore.points import DAY_HOURS, OF_RESTARTS, Point, faults_of
from psp_sandbox.testing.explore.results import At, Kind
from psp_sandbox.testing.safepay import forged as forged_by_safepay

if TYPE_CHECKING:
    from psp_sandbox.client import Client
    from psp_sandbox.client.models import Endpoint, Event
    from psp_sandbox.testing.webhooks import Received

HOURS: Final = 78.0
"""Longer than every retry schedule: the standard one ends after 75.6 hours, with jitter."""
_STEPS: Final = (60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0, 24 * 3600.0)
"""Steps of virtual time, in seconds, and then the rest. What the application does after a step belongs to the next one."""
_MOVING: Final = ("PROCESSING", "RETRY")
_MAX_LISTED: Final = 1000
_PAGE: Final = 100
_FORGED_VERSIONS_AHEAD: Final = 100
_FORGED: Final[Mapping[str, Callable[[str], bytes]]] = {"safepay": forged_by_safepay}
"""How an endpoint signs → what forges a webhook like the one that it got. Others get forged events in the native form."""


@dataclass(slots=True)
class Subject:
    """A merchant that is explored, with what its application can do.

    `client` has a key of the explorer's own, so that faults hit the calls of `app_key_id` only.
    """

    client: "Client"
    app_key_id: str
    advance: Callable[[float], object]
    """Move the merchant's clock by seconds, and the application's too where it is frozen. Raises AssertionError, PspError."""
    drain: Callable[[], object]
    restart: Callable[[], object] | None = None
    """Restart the application, as after a crash."""
    has_been_killed: bool = False
    restart_error: Exception | None = None
    """What `restart` raised while the application answered an event."""
    fault_ids: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Rested:
    """The world at rest."""

    missed: str | None
    """Why what was to happen at the points did not happen; None if it did."""
    payouts: tuple[Paid, ...]
    unsettled: tuple[str, ...]
    """What still moves or was never acknowledged, one sentence each."""


def arm(subject: Subject, points: Sequence[Point]) -> None:
    """Create the faults of these points. Raises PspError."""
    for point in points:
        for body in faults_of(point, subject.app_key_id):
            created: Any = subject.client.faults.create(**body)
            subject.fault_ids.append(created.id)


def killer(subject: Subject, point: Point) -> Callable[["Received"], bool]:
    """Return what restarts the application when it has handled an event of this point, and whether its answer is then lost."""
    seen = 0

    def on_answer(received: "Received") -> bool:
        nonlocal seen
        is_match = _type_of(subject, received) == point.match[0]
        seen += is_match
        if not is_match or subject.has_been_killed or seen <= point.skip or subject.restart is None:
            return False
        subject.has_been_killed = True
        try:
            subject.restart()
        except Exception as error:  # the user's code may raise anything; raised here, it would only become an answer
            subject.restart_error = error
        return point.kind is Kind.KILLED_BEFORE_ANSWER

    return on_answer


def _type_of(subject: Subject, received: "Received") -> str | None:
    """Return the type of a webhook's event. One in a dialect has the ids of the payout's events up to this one."""
    if received.event:
        return str(received.event["type"])
    events = [one for one in islice(subject.client.events.list(limit=_PAGE), _PAGE) if one.id.encode() in received.body]
    return max(events, key=lambda one: one.id).type if events else None


def come_to_rest(subject: Subject, points: Sequence[Point]) -> Rested:
    """Do what the points ask for when a test ends, end all faults, restart the application, and let HOURS pass.

    Raises PspError, and what this restart raises.
    """
    subject.drain()
    kinds = {point.kind for point in points}
    reached = _first_faults_hit(subject, points)
    left = HOURS * 3600
    if Kind.KEY_EXPIRED in kinds:
        subject.advance(DAY_HOURS * 3600.0)
        left -= DAY_HOURS * 3600.0
    for point in points:
        reached = _act(subject, point) and reached
    if Kind.ONLY_RECOVERED not in kinds:
        _end_faults(subject)
    if subject.restart is not None:
        subject.restart()
    _let_time_pass(subject, left)
    if Kind.ONLY_RECOVERED in kinds:
        _end_faults(subject)
        _recover(subject)
    subject.drain()
    payouts = tuple(provider_rows(subject.client))
    return Rested(_why_missed(subject, reached), payouts, (*_moving(payouts), *_unacknowledged(subject)))


def _why_missed(subject: Subject, reached: bool) -> str | None:
    if subject.restart_error is not None:
        error = subject.restart_error
        return f"The application could start again later, but not there: {type(error).__name__}: {error}"[:300]
    return None if reached else "The run did not come to this point."


def _first_faults_hit(subject: Subject, points: Sequence[Point]) -> bool:
    """Return whether the first fault of each point was hit. The others only accompany it."""
    ids = iter(subject.fault_ids)
    reached = True
    for point in points:
        of_point = [next(ids) for _ in faults_of(point, subject.app_key_id)]
        reached = reached and all(subject.client.faults.get(one).hits for one in of_point[:1])
    return reached


def _end_faults(subject: Subject) -> None:
    """Delete all faults, also those that the test has left behind."""
    for fault in list(islice(subject.client.faults.list(limit=_PAGE), _PAGE)):
        subject.client.faults.delete(fault.id)
    subject.fault_ids.clear()


def _let_time_pass(subject: Subject, seconds: float) -> None:
    for step in _STEPS:
        subject.advance(min(step, seconds))
        seconds -= min(step, seconds)
    subject.advance(seconds)


def _act(subject: Subject, point: Point) -> bool:
    """Do what an operator or an attacker does at this point. Return whether it was possible."""
    if point.at is At.STATUS:
        return _operate(subject, point)
    if point.kind is Kind.FORGED:
        return _forge(subject, point)
    return subject.has_been_killed or point.kind not in OF_RESTARTS


def _operate(subject: Subject, point: Point) -> bool:
    found = [one for one in provider_rows(subject.client) if one.status == point.match[0]]
    if len(found) <= point.skip:
        return False
    payouts, payout_id = subject.client.payouts, found[point.skip].id
    try:
        if point.kind is Kind.CANCELLED:
            payouts.cancel(payout_id)
        elif point.kind is Kind.RETURNED:
            payouts.simulate(payout_id, "RETURNED")
        else:
            payouts.reinitiate(payout_id)
            subject.advance(60.0)
            if payouts.get(payout_id).status == "FAILED":
                payouts.reinitiate(payout_id)
    except ProblemError as problem:
        if problem.status != 409:
            raise
        return False
    subject.drain()
    return True


def _forge(subject: Subject, point: Point) -> bool:
    """Send the application copies of an event that claim the opposite: one unsigned, one whose signature is wrong."""
    events = sorted(islice(subject.client.events.list(limit=_PAGE), _MAX_LISTED), key=lambda one: one.id)
    found = [one for one in events if one.type == point.match[0]]
    endpoints = [one for one in subject.client.webhook_endpoints.list(limit=_PAGE) if one.status == "ENABLED"]
    if len(found) <= point.skip or not endpoints:
        return False
    for endpoint in endpoints:
        body = _forged_for(subject, endpoint, found[point.skip])
        for headers in ({}, _wrongly_signed(subject, endpoint, body)):
            _post(endpoint.url, body, headers)
    return True


def _forged_for(subject: Subject, endpoint: "Endpoint", event: "Event") -> bytes:
    """Return the forged event as the endpoint gets events, as far as one of the payout's was sent to it."""
    forged = _FORGED.get(endpoint.signing)
    deliveries = subject.client.deliveries.list(endpoint_id=endpoint.id, event_id=event.id, limit=1) if forged else iter(())
    attempts = [one for delivery in islice(deliveries, 1) for one in subject.client.deliveries.get(delivery.id).attempts]
    sent = [one.request.body for one in attempts if one.request is not None]
    return forged(sent[-1]) if forged and sent else _forged(event)


def _forged(event: "Event") -> bytes:
    data = dict(event.data)
    claims = ("payout.failed", "FAILED") if data.get("status") == "SUCCESS" else ("payout.succeeded", "SUCCESS")
    data |= {"status": claims[1], "version": data.get("version", 0) + _FORGED_VERSIONS_AHEAD}
    at = event.timestamp.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    forged = {"id": str(uuid.uuid4()), "type": claims[0], "timestamp": at, "livemode": False, "previous_status": "PROCESSING"}
    return json.dumps({**forged, "data": data}, default=str).encode()


def _wrongly_signed(subject: Subject, endpoint: "Endpoint", body: bytes) -> Mapping[str, str]:
    """Return the headers of a webhook as the endpoint gets them, with a signature that is not of this body."""
    id_ = json.loads(body).get("id")
    return subject.client.webhook_endpoints.explain_signature(endpoint.id, body=f"{body.decode()} ", id=id_).headers


def _post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a request as anybody can. Whatever the application answers, its books tell whether it believed it."""
    import httpx

    with contextlib.suppress(httpx.HTTPError):
        httpx.post(url, content=body, headers={"content-type": "application/json", **headers}, timeout=15, trust_env=False)


def _recover(subject: Subject) -> None:
    since = subject.client.clock.get().now - timedelta(hours=2 * HOURS)
    for endpoint in list(islice(subject.client.webhook_endpoints.list(limit=_PAGE), _PAGE)):
        if endpoint.status != "ENABLED":
            subject.client.webhook_endpoints.change(endpoint.id, status="ENABLED")
        subject.client.webhook_endpoints.recover(endpoint.id, since=since, which="failed")
    subject.drain()
    subject.advance(3600.0)


def _moving(payouts: Sequence[Paid]) -> list[str]:
    return [f"The payout {one.reference} is still {one.status}." for one in payouts if one.status in _MOVING]


def _unacknowledged(subject: Subject) -> list[str]:
    deliveries = islice(subject.client.deliveries.list(limit=_PAGE), _MAX_LISTED)
    return [
        f"The event {one.event_type} was never acknowledged: {one.attempt_count} attempts failed."
        for one in deliveries
        if one.status != "SUCCEEDED" and not _was_silenced(subject, one.id)
    ]


def _was_silenced(subject: Subject, delivery_id: str) -> bool:
    """Whether the application never saw an event: the silence of a fault was longer than the retries, as in some dialects."""
    attempts = subject.client.deliveries.get(delivery_id).attempts
    return bool(attempts) and all(one.fault_kind == "drop" for one in attempts)


def prepare(client: "Client") -> tuple["Client", str]:
    """Create a key of the explorer's own, and return a client with it and the id of the application's key. Raises PspError."""
    created = client.keys.create("admin", name="psp-explore")
    others = [key.id for key in client.keys.list(limit=_PAGE) if key.id != created.id]
    if len(others) != 1:
        raise PspError("The merchant has more than one key already, so the application's calls cannot be told from others.")
    return client.with_key(created.api_key), others[0]
